// Probabilities of classes from those of each of two classes: T.-F. Wu, C.-J. Lin and R. C. Weng, "Probability estimates
// for multi-class classification by pairwise coupling" (JMLR 5, 2004), algorithm 2, with libsvm's limits.

#include <math.h>

#include "dscc.h"

typedef struct {
  const float* pairs;  // of row and pair (i, j), i < j: that it is i, not j
  float* shares;       // of row and class
  int64_t classes;
  int fails;  // there was no memory
} Coupling;

// `q` has classes * (classes + 2) numbers of scratch memory.
static void couple(const float* pairs, float* shares, int64_t k, double* q) {
  double *p = q + k * k, *qp = p + k;
  memset(q, 0, (size_t)(k * k) * sizeof(double));
  for (int64_t i = 0; i < k; ++i) {
    p[i] = 1.0 / (double)k;
    for (int64_t j = i + 1; j < k; ++j) {
      double r = fmin(fmax(*pairs++, 1e-7), 1 - 1e-7);
      q[i * k + i] += (1 - r) * (1 - r);
      q[j * k + j] += r * r;
      q[i * k + j] = q[j * k + i] = -r * (1 - r);
    }
  }
  for (int64_t round = 0; round < (k > 100 ? k : 100); ++round) {
    double whole = 0, worst = 0;
    for (int64_t i = 0; i < k; ++i) {
      qp[i] = 0;
      for (int64_t j = 0; j < k; ++j) qp[i] += q[i * k + j] * p[j];
      whole += p[i] * qp[i];
    }
    for (int64_t i = 0; i < k; ++i) worst = fmax(worst, fabs(qp[i] - whole));
    if (worst < 0.005 / (double)k) break;
    for (int64_t i = 0; i < k; ++i) {
      double step = (whole - qp[i]) / q[i * k + i];
      p[i] += step;
      whole = (whole + step * (step * q[i * k + i] + 2 * qp[i])) / ((1 + step) * (1 + step));
      for (int64_t j = 0; j < k; ++j) {
        qp[j] = (qp[j] + step * q[i * k + j]) / (1 + step);
        p[j] /= 1 + step;
      }
    }
  }
  for (int64_t i = 0; i < k; ++i) shares[i] = (float)p[i];
}

static void couple_rows(int64_t begin, int64_t end, void* data) {
  Coupling* c = (Coupling*)data;
  const int64_t k = c->classes;
  double few[16 * 18], *scratch = k <= 16 ? few : malloc((size_t)(k * (k + 2)) * sizeof(double));
  if (scratch == NULL) c->fails = 1;
  for (; begin < end && scratch != NULL; ++begin)
    couple(c->pairs + begin * (k * (k - 1) / 2), c->shares + begin * k, k, scratch);
  if (scratch != few) free(scratch);
}

// (pairs of rows and classes * (classes - 1) / 2, [classes]) -> rows, classes; all float32.
DSCC_FUNCTION(couple) {
  const DLTensor* pairs = dscc_tensor(&args[1]);
  int64_t shape[2] = {pairs->shape[0], dscc_numbers(&args[2], NULL)[0]};
  TVMFFIObjectHandle made = dscc_new_tensor(2, shape, pairs->dtype);
  if (made == NULL) return -1;
  dscc_set_object(result, made);
  Coupling coupling = {(const float*)dscc_data(pairs), (float*)dscc_data(dscc_tensor(result)), shape[1], 0};
  dscc_parallel(shape[0], (double)shape[0] * (double)(shape[1] * shape[1]) * 64, couple_rows, &coupling);
  return coupling.fails ? dscc_fail("MemoryError", "there is not enough memory") : 0;
}
