// Signals: discrete Fourier transforms of any length, and filter banks.

#include <math.h>

#include "dscc.h"

typedef struct {
  double re, im;
} Complex;

static inline Complex times(Complex a, Complex b) { return (Complex){a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }

enum { LARGE_PRIME = 64, MAX_FACTORS = 64 };

// A transform of length n: by its prime factors, or if one is large by a convolution of length m, a power of two.
typedef struct Plan {
  int64_t n, factors[MAX_FACTORS];
  int count;
  Complex* roots;  // e ** (-2 pi i k / n)
  int64_t m;
  struct Plan* power;         // of length m
  Complex *chirp, *spectrum;  // of Bluestein's algorithm: e ** (-pi i k * k / n), and the transform of its inverse
} Plan;

static void transform(const Plan* plan, Complex* data, Complex* work);

static void free_plan(Plan* plan) {
  if (plan == NULL) return;
  free_plan(plan->power);
  free(plan->roots);
  free(plan->chirp);
  free(plan->spectrum);
  free(plan);
}

// Elements of `work` that a transform needs.
static int64_t work_size(const Plan* plan) { return plan->m ? 2 * plan->m : plan->n + LARGE_PRIME; }

static Plan* new_plan(int64_t n) {
  Plan* plan = (Plan*)calloc(1, sizeof(Plan));
  if (plan == NULL) return NULL;
  plan->n = n;
  int64_t rest = n;
  for (int64_t p = 2; rest > 1 && p < LARGE_PRIME; ++p)
    for (; rest % p == 0; rest /= p) plan->factors[plan->count++] = p;
  const double turn = -2 * acos(-1.0) / (double)n;
  if (rest <= 1) {
    plan->roots = (Complex*)malloc((size_t)(n + 1) * sizeof(Complex));
    if (plan->roots == NULL) goto failed;
    for (int64_t k = 0; k < n; ++k) plan->roots[k] = (Complex){cos(turn * (double)k), sin(turn * (double)k)};
    return plan;
  }
  for (plan->m = 1; plan->m < 2 * n - 1;) plan->m *= 2;
  plan->power = new_plan(plan->m);
  plan->chirp = (Complex*)malloc((size_t)n * sizeof(Complex));
  plan->spectrum = (Complex*)calloc((size_t)plan->m, sizeof(Complex));
  Complex* work = (Complex*)malloc((size_t)(plan->m + LARGE_PRIME) * sizeof(Complex));
  if (plan->power == NULL || plan->chirp == NULL || plan->spectrum == NULL || work == NULL) {
    free(work);
    goto failed;
  }
  for (int64_t k = 0; k < n; ++k) {
    double angle = turn / 2 * (double)(int64_t)((unsigned __int128)k * (uint64_t)k % (uint64_t)(2 * n));
    plan->chirp[k] = (Complex){cos(angle), sin(angle)};
    Complex inverse = {plan->chirp[k].re, -plan->chirp[k].im};
    plan->spectrum[k] = inverse;
    if (k > 0) plan->spectrum[plan->m - k] = inverse;
  }
  transform(plan->power, plan->spectrum, work);
  free(work);
  return plan;
failed:
  free_plan(plan);
  return NULL;
}

// out[0..n) = the transform of in[0], in[step], ...; n is the product of the factors from `level` on.
static void mixed(const Plan* plan, const Complex* in, Complex* out, int64_t n, int64_t step, int level) {
  if (n == 1) {
    *out = *in;
    return;
  }
  int64_t p = plan->factors[level], part = n / p, root = plan->n / n;
  for (int64_t j = 0; j < p; ++j) mixed(plan, in + j * step, out + j * part, part, step * p, level + 1);
  for (int64_t k = 0; k < part; ++k) {
    Complex terms[LARGE_PRIME];
    for (int64_t j = 0; j < p; ++j) terms[j] = times(out[j * part + k], plan->roots[j * k * root]);
    if (p == 2) {
      out[k] = (Complex){terms[0].re + terms[1].re, terms[0].im + terms[1].im};
      out[k + part] = (Complex){terms[0].re - terms[1].re, terms[0].im - terms[1].im};
      continue;
    }
    for (int64_t q = 0; q < p; ++q) {
      Complex sum = terms[0];
      for (int64_t j = 1; j < p; ++j) {
        Complex term = times(terms[j], plan->roots[j * q % p * (plan->n / p)]);
        sum.re += term.re;
        sum.im += term.im;
      }
      out[k + q * part] = sum;
    }
  }
}

// data[0..n) in place.
static void transform(const Plan* plan, Complex* data, Complex* work) {
  if (!plan->m) {
    mixed(plan, data, work, plan->n, 1, 0);
    memcpy(data, work, (size_t)plan->n * sizeof(Complex));
    return;
  }
  int64_t n = plan->n, m = plan->m;
  Complex *x = work, *inner = work + m;
  for (int64_t k = 0; k < m; ++k) x[k] = k < n ? times(data[k], plan->chirp[k]) : (Complex){0, 0};
  mixed(plan->power, x, inner, m, 1, 0);
  for (int64_t k = 0; k < m; ++k) {  // back by a forward transform of the conjugate
    Complex product = times(inner[k], plan->spectrum[k]);
    x[k] = (Complex){product.re, -product.im};
  }
  mixed(plan->power, x, inner, m, 1, 0);
  for (int64_t k = 0; k < n; ++k)
    data[k] = times((Complex){inner[k].re / (double)m, -inner[k].im / (double)m}, plan->chirp[k]);
}

typedef struct {
  const DLTensor *x, *out;
  const Plan* plan;
  int64_t inverse, half;
  int failed;
} Job;

static void lines(int64_t begin, int64_t end, void* data) {
  Job* job = (Job*)data;
  const int64_t length = job->plan->n, size = job->x->shape[1], after = job->x->shape[2], parts = job->x->shape[3];
  const int64_t kept = job->out->shape[1], out_parts = job->out->shape[3];
  Complex* line = (Complex*)malloc((size_t)(length + work_size(job->plan)) * sizeof(Complex));
  if (line == NULL) {
    job->failed = 1;
    return;
  }
  const double sign = job->inverse ? -1 : 1, scale = job->inverse ? 1 / (double)length : 1;
  // What of the input counts: with `half` of an inverse only the first half is given, the other mirrors it.
  const int64_t given = job->inverse && job->half ? length / 2 + 1 : length;
  for (int64_t at = begin; at < end; ++at) {
    int64_t first = at / after * size * after + at % after;
    for (int64_t k = 0; k < length; ++k) {
      int64_t mirrored = k >= given, source = mirrored ? length - k : k;
      int64_t place = (first + source * after) * parts;
      line[k] = (Complex){0, 0};
      if (source < size) line[k] = (Complex){dscc_real(job->x, place), parts == 2 ? dscc_real(job->x, place + 1) : 0};
      line[k].im *= mirrored ? -sign : sign;  // an inverse is the conjugate of the transform of the conjugate
    }
    if (job->inverse && job->half) {
      line[0].im = 0;
      if (length % 2 == 0) line[length / 2].im = 0;
    }
    transform(job->plan, line, line + length);
    int64_t start = at / after * kept * after + at % after;
    for (int64_t k = 0; k < kept; ++k) {
      int64_t place = (start + k * after) * out_parts;
      dscc_set_real(job->out, place, line[k].re * scale);
      if (out_parts == 2) dscc_set_real(job->out, place + 1, sign * line[k].im * scale);
    }
  }
  free(line);
}

// dscc.fourier(vm, x (before, n, after, 1 or 2), [length, inverse, half]): (before, kept, after, parts) along the second
// dimension, after it is cut or filled with zeros to `length`. With `half` only the first length / 2 + 1 are kept; of an
// inverse they are what is given, and the result is real: 1 part. float32 or float64, computed in float64.
DSCC_FUNCTION(fourier) {
  (void)self, (void)count;
  const DLTensor* x = dscc_tensor(&args[1]);
  const int64_t *options = dscc_numbers(&args[2], NULL), length = options[0];
  const int one = options[1] && options[2];
  if (length < 1) return dscc_fail("ValueError", "DFT: the length must be 1 or more");
  int64_t shape[4] = {x->shape[0], options[2] && !one ? length / 2 + 1 : length, x->shape[2], one ? 1 : 2};
  TVMFFIObjectHandle out = dscc_new_tensor(4, shape, x->dtype);
  if (out == NULL) return -1;
  dscc_set_object(result, out);
  Plan* plan = new_plan(length);
  Job job = {x, dscc_tensor(result), plan, options[1], options[2], plan == NULL};
  if (plan != NULL) dscc_parallel(shape[0] * shape[2], 32.0 * (double)(shape[0] * shape[2] * length), lines, &job);
  free_plan(plan);
  return job.failed ? dscc_fail("MemoryError", "there is not enough memory") : 0;
}

// dscc.mel_weights(vm, rate, low, high, [filters, length]): float64 (length / 2 + 1, filters), triangles over the bins of
// a transform of `length`, evenly spaced on the mel scale between two frequencies.
DSCC_FUNCTION(mel_weights) {
  (void)self, (void)count;
  const int64_t *options = dscc_numbers(&args[4], NULL), filters = options[0], length = options[1];
  int64_t bins = length / 2 + 1, shape[2] = {bins, filters};
  double rate = (double)dscc_integer(dscc_tensor(&args[1])), edge[2];
  for (int i = 0; i < 2; ++i) edge[i] = 2595 * log1p(dscc_real(dscc_tensor(&args[2 + i]), 0) / 700) / log(10);
  double step = (edge[1] - edge[0]) / (double)(filters + 2);
  TVMFFIObjectHandle out = dscc_new_tensor(2, shape, (DLDataType){kDLFloat, 64, 1});
  if (out == NULL) return -1;
  dscc_set_object(result, out);
  double* weight = (double*)dscc_data(dscc_tensor(result));
  memset(weight, 0, (size_t)(bins * filters) * sizeof(double));
  for (int64_t i = 0; i < filters; ++i) {
    int64_t at[3];
    for (int k = 0; k < 3; ++k)
      at[k] = (int64_t)floor((double)(length + 1) * 700 * expm1(((double)(i + k) * step + edge[0]) / 2595 * log(10)) / rate);
    if (at[1] == at[0] && at[1] >= 0 && at[1] < bins) weight[at[1] * filters + i] = 1;
    for (int64_t j = at[0] < 0 ? 0 : at[0]; j <= at[1] && j < bins && at[1] > at[0]; ++j)
      weight[j * filters + i] = (double)(j - at[0]) / (double)(at[1] - at[0]);
    for (int64_t j = at[1] < 0 ? 0 : at[1]; j < at[2] && j < bins; ++j)
      weight[j * filters + i] = (double)(at[2] - j) / (double)(at[2] - at[1]);
  }
  return 0;
}
