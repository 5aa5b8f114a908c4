// Linear algebra that no kernel does: determinants, and attention by a state that is carried along.

#include <math.h>

#include "dscc.h"

typedef struct {
  const DLTensor *x, *out;
  int64_t n;
  int failed;
} Determinants;

// By elimination with the greatest pivot of each column.
static void determinants(int64_t begin, int64_t end, void* data) {
  Determinants* job = (Determinants*)data;
  int64_t n = job->n;
  double* a = (double*)malloc((size_t)(n * n + 1) * sizeof(double));
  if (a == NULL) {
    job->failed = 1;
    return;
  }
  for (int64_t at = begin; at < end; ++at) {
    double product = 1;
    for (int64_t i = 0; i < n * n; ++i) a[i] = dscc_real(job->x, at * n * n + i);
    for (int64_t k = 0; k < n && product != 0; ++k) {
      int64_t pivot = k;
      for (int64_t i = k + 1; i < n; ++i)
        if (fabs(a[i * n + k]) > fabs(a[pivot * n + k])) pivot = i;
      if (pivot != k) {
        product = -product;
        for (int64_t j = k; j < n; ++j) {
          double moved = a[k * n + j];
          a[k * n + j] = a[pivot * n + j];
          a[pivot * n + j] = moved;
        }
      }
      product *= a[k * n + k];
      if (product == 0) break;
      for (int64_t i = k + 1; i < n; ++i) {
        double factor = a[i * n + k] / a[k * n + k];
        for (int64_t j = k + 1; j < n; ++j) a[i * n + j] -= factor * a[k * n + j];
      }
    }
    dscc_set_real(job->out, at, product);
  }
  free(a);
}

// dscc.determinant(vm, x (batch, n, n)): (batch,); float32 or float64.
DSCC_FUNCTION(determinant) {
  (void)self, (void)count;
  const DLTensor* x = dscc_tensor(&args[1]);
  TVMFFIObjectHandle out = dscc_new_tensor(1, &x->shape[0], x->dtype);
  if (out == NULL) return -1;
  dscc_set_object(result, out);
  Determinants job = {x, dscc_tensor(result), x->shape[1], 0};
  dscc_parallel(x->shape[0], (double)(dscc_elements(x) * x->shape[1]), determinants, &job);
  return job.failed ? dscc_fail("MemoryError", "there is not enough memory") : 0;
}

typedef struct {
  const float *query, *key, *value, *decay, *beta;
  float *out, *state;
  int64_t steps, heads, group, dk, dv, decays, betas;
  float scale;
  int delta;
} Recurrence;

// One head of keys of one batch entry after the other; its state (dk, dv) is read and written once per step.
static void recur(int64_t begin, int64_t end, void* data) {
  const Recurrence* job = (const Recurrence*)data;
  const int64_t dk = job->dk, dv = job->dv, heads = job->heads, wide = heads * job->group;
  for (int64_t at = begin; at < end; ++at) {
    int64_t batch = at / heads, head = at % heads;
    float* restrict state = job->state + at * dk * dv;
    for (int64_t step = 0; step < job->steps; ++step) {
      int64_t row = batch * job->steps + step;
      const float* key = job->key + (row * heads + head) * dk;
      const float* value = job->value + (row * heads + head) * dv;
      if (job->decay != NULL) {
        const float* decay = job->decay + row * heads * job->decays + head * job->decays;
        for (int64_t d = 0; d < dk; ++d) {
          float factor = expf(decay[job->decays == 1 ? 0 : d]);
          for (int64_t m = 0; m < dv; ++m) state[d * dv + m] *= factor;
        }
      }
      float written[dv];
      if (job->delta) {
        float beta = job->beta[row * job->betas + (job->betas == 1 ? 0 : head)];
        for (int64_t m = 0; m < dv; ++m) written[m] = 0;
        for (int64_t d = 0; d < dk; ++d)
          for (int64_t m = 0; m < dv; ++m) written[m] += state[d * dv + m] * key[d];
        for (int64_t m = 0; m < dv; ++m) written[m] = beta * (value[m] - written[m]);
      } else {
        for (int64_t m = 0; m < dv; ++m) written[m] = value[m];
      }
      for (int64_t d = 0; d < dk; ++d)
        for (int64_t m = 0; m < dv; ++m) state[d * dv + m] += key[d] * written[m];
      for (int64_t g = 0; g < job->group; ++g) {
        const float* query = job->query + (row * wide + head * job->group + g) * dk;
        float* restrict out = job->out + (row * wide + head * job->group + g) * dv;
        for (int64_t m = 0; m < dv; ++m) out[m] = 0;
        for (int64_t d = 0; d < dk; ++d)
          for (int64_t m = 0; m < dv; ++m) out[m] += query[d] * state[d * dv + m];
        for (int64_t m = 0; m < dv; ++m) out[m] *= job->scale;
      }
    }
  }
}

// dscc.linear_attention(vm, query (b, t, q heads * dk), key (b, t, heads * dk), value (b, t, heads * dv), state (b,
// heads, dk, dv), decay (b, t, heads or heads * dk), beta (b, t, heads or 1), scale, [heads, q heads, gated, delta]):
// (b, t, q heads * dv) and the new state; all are float32. Step by step: state *= e ** decay if gated; v = beta * (value
// - key @ state) if delta; state += outer(key, v); out = scale * query @ state.
DSCC_FUNCTION(linear_attention) {
  (void)self, (void)count;
  const DLTensor* in[7];
  for (int i = 0; i < 7; ++i) in[i] = dscc_tensor(&args[i + 1]);
  const int64_t* options = dscc_numbers(&args[8], NULL);
  int64_t heads = options[0], batch = in[0]->shape[0], steps = in[0]->shape[1];
  int64_t dk = in[3]->shape[2], dv = in[3]->shape[3], shape[3] = {batch, steps, options[1] * dv};
  TVMFFIAny parts[2];
  TVMFFIObjectHandle out = dscc_new_tensor(3, shape, in[0]->dtype);
  if (out == NULL) return -1;
  dscc_set_object(&parts[0], out);
  out = dscc_new_tensor(4, in[3]->shape, in[3]->dtype);
  if (out == NULL) {
    dscc_drop(&parts[0]);
    return -1;
  }
  dscc_set_object(&parts[1], out);
  float* state = (float*)dscc_data(dscc_tensor(&parts[1]));
  memcpy(state, dscc_data(in[3]), dscc_bytes(in[3]));
  Recurrence job = {(const float*)dscc_data(in[0]),
                    (const float*)dscc_data(in[1]),
                    (const float*)dscc_data(in[2]),
                    options[2] ? (const float*)dscc_data(in[4]) : NULL,
                    (const float*)dscc_data(in[5]),
                    (float*)dscc_data(dscc_tensor(&parts[0])),
                    state,
                    steps,
                    heads,
                    options[1] / heads,
                    dk,
                    dv,
                    options[2] ? in[4]->shape[2] / heads : 1,
                    in[5]->shape[2],
                    *(const float*)dscc_data(in[6]),
                    (int)options[3]};
  dscc_parallel(batch * heads, 4.0 * (double)(batch * heads * steps * dk * dv), recur, &job);
  return dscc_set_array(result, parts, 2);
}
