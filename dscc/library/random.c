// Random numbers: the Mersenne Twister MT19937, seeded and drawn from as NumPy's RandomState does, so that a seed gives
// the numbers that ONNX's reference evaluator gives. Without a seed, every call draws other ones.

#include <math.h>
#include <stdatomic.h>
#include <time.h>

#include "dscc.h"

enum { WORDS = 624, SHIFT = 397 };

typedef struct {
  uint32_t words[WORDS];
  int at, has_spare;
  double spare;  // the second of two normal numbers that are made at once
} Generator;

static void seed(Generator* g, uint32_t number) {
  for (int i = 0; i < WORDS; ++i) {
    g->words[i] = number;
    number = 1812433253u * (number ^ (number >> 30)) + (uint32_t)i + 1;
  }
  g->at = WORDS;
  g->has_spare = 0;
}

static uint32_t next_word(Generator* g) {
  if (g->at == WORDS) {
    for (int i = 0; i < WORDS; ++i) {
      uint32_t mixed = (g->words[i] & 0x80000000u) | (g->words[(i + 1) % WORDS] & 0x7fffffffu);
      g->words[i] = g->words[(i + SHIFT) % WORDS] ^ (mixed >> 1) ^ (mixed & 1 ? 0x9908b0dfu : 0);
    }
    g->at = 0;
  }
  uint32_t word = g->words[g->at++];
  word ^= word >> 11;
  word ^= (word << 7) & 0x9d2c5680u;
  word ^= (word << 15) & 0xefc60000u;
  return word ^ (word >> 18);
}

// From 0 to below 1, with 53 random bits.
static double uniform(Generator* g) {
  uint32_t high = next_word(g) >> 5, low = next_word(g) >> 6;
  return (high * 67108864.0 + low) / 9007199254740992.0;
}

// By the polar method.
static double normal(Generator* g) {
  if (g->has_spare) {
    g->has_spare = 0;
    return g->spare;
  }
  double x, y, square;
  do {
    x = 2.0 * uniform(g) - 1.0;
    y = 2.0 * uniform(g) - 1.0;
    square = x * x + y * y;
  } while (square >= 1.0 || square == 0.0);
  double factor = sqrt(-2.0 * log(square) / square);
  g->spare = factor * x;
  g->has_spare = 1;
  return factor * y;
}

// options: [whether there is a seed, the seed, ...].
static void begin(Generator* g, const int64_t* options) {
  static _Atomic uint64_t calls;
  if (options[0]) {
    seed(g, (uint32_t)options[1]);
    return;
  }
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  uint64_t mixed = (uint64_t)now.tv_nsec + (uint64_t)now.tv_sec * 1000000000u + (uint64_t)(uintptr_t)&calls;
  mixed += 0x9e3779b97f4a7c15u * (atomic_fetch_add(&calls, 1) + 1);
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
  seed(g, (uint32_t)(mixed ^ (mixed >> 31)));
}

// A new tensor of `shape`, an argument, as the result; NULL after an error.
static DLTensor* fill(const TVMFFIAny* shape, DLDataType dtype, TVMFFIAny* result) {
  int64_t rank;
  const int64_t* sizes = dscc_numbers(shape, &rank);
  TVMFFIObjectHandle out = dscc_new_tensor((int)rank, sizes, dtype);
  if (out == NULL) return NULL;
  dscc_set_object(result, out);
  return dscc_tensor(result);
}

// dscc.random(vm, shape, scale, shift, [seeded, seed, normal, ...]): numbers * scale + shift, of the type of `scale`.
DSCC_FUNCTION(random) {
  (void)self, (void)count;
  const DLTensor* scale = dscc_tensor(&args[2]);
  const int64_t* options = dscc_numbers(&args[4], NULL);
  DLTensor* out = fill(&args[1], scale->dtype, result);
  if (out == NULL) return -1;
  double factor = dscc_real(scale, 0), shift = dscc_real(dscc_tensor(&args[3]), 0);
  Generator g;
  begin(&g, options);
  for (int64_t i = 0, n = dscc_elements(out); i < n; ++i)
    dscc_set_real(out, i, (options[2] ? normal(&g) : uniform(&g)) * factor + shift);
  return 0;
}

// dscc.random_kept(vm, shape, ratio, training, [seeded, seed, ...]): bool, false with the probability `ratio` while
// training, else true.
DSCC_FUNCTION(random_kept) {
  (void)self, (void)count;
  double ratio = dscc_real(dscc_tensor(&args[2]), 0);
  int training = dscc_integer(dscc_tensor(&args[3])) != 0;
  DLTensor* out = fill(&args[1], (DLDataType){kDLBool, 8, 1}, result);
  if (out == NULL) return -1;
  uint8_t* kept = (uint8_t*)dscc_data(out);
  Generator g;
  begin(&g, dscc_numbers(&args[4], NULL));
  for (int64_t i = 0, n = dscc_elements(out); i < n; ++i) kept[i] = !training || ratio == 0 || uniform(&g) >= ratio;
  return 0;
}

// dscc.random_bernoulli(vm, p, [seeded, seed, ...]): bool of the shape of p, true with those probabilities.
DSCC_FUNCTION(random_bernoulli) {
  (void)self, (void)count;
  const DLTensor* p = dscc_tensor(&args[1]);
  TVMFFIObjectHandle out = dscc_new_tensor(p->ndim, p->shape, (DLDataType){kDLBool, 8, 1});
  if (out == NULL) return -1;
  dscc_set_object(result, out);
  uint8_t* drawn = (uint8_t*)dscc_data(dscc_tensor(result));
  Generator g;
  begin(&g, dscc_numbers(&args[2], NULL));
  for (int64_t i = 0, n = dscc_elements(p); i < n; ++i) {
    double chance = dscc_real(p, i);  // in the two cases as NumPy's binomial distribution of one trial
    if (chance == 0)
      drawn[i] = 0;
    else
      drawn[i] = chance <= 0.5 ? uniform(&g) > exp(log(1 - chance)) : uniform(&g) <= exp(log(chance));
  }
  return 0;
}

// dscc.random_classes(vm, weights (batch, classes), [seeded, seed, samples, ...]): (batch, samples) of int64, each a
// class drawn with a probability in proportion to e ** weight.
DSCC_FUNCTION(random_classes) {
  (void)self, (void)count;
  const DLTensor* weights = dscc_tensor(&args[1]);
  const int64_t* options = dscc_numbers(&args[2], NULL);
  int64_t classes = weights->shape[1], shape[2] = {weights->shape[0], options[2]};
  if (classes < 1 && shape[0] * shape[1] > 0) return dscc_fail("ValueError", "Multinomial: there is no class to draw");
  double* sums = (double*)malloc((size_t)(classes + 1) * sizeof(double));
  if (sums == NULL) return dscc_fail("MemoryError", "there is not enough memory");
  TVMFFIObjectHandle out = dscc_new_tensor(2, shape, (DLDataType){kDLInt, 64, 1});
  if (out != NULL) {
    dscc_set_object(result, out);
    int64_t* drawn = (int64_t*)dscc_data(dscc_tensor(result));
    Generator g;
    begin(&g, options);
    for (int64_t row = 0; row < shape[0]; ++row) {
      double top = -INFINITY, total = 0;
      for (int64_t c = 0; c < classes; ++c) top = fmax(top, dscc_real(weights, row * classes + c));
      for (int64_t c = 0; c < classes; ++c) sums[c] = total += exp(dscc_real(weights, row * classes + c) - top);
      for (int64_t s = 0; s < shape[1]; ++s) {
        double level = uniform(&g) * total;
        int64_t low = 0, high = classes - 1;  // the first class whose sum is above the level
        while (low < high) {
          int64_t middle = (low + high) / 2;
          if (sums[middle] > level)
            high = middle;
          else
            low = middle + 1;
        }
        drawn[row * shape[1] + s] = low;
      }
    }
  }
  free(sums);
  return out == NULL ? -1 : 0;
}
