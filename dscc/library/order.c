// What is found by looking at every element: the k greatest ones, the distinct ones, those that are not zero.

#include <math.h>

#include "dscc.h"

// An element as a number without sign that orders as the element does: -0 is 0, and NaN is above all other floats.
static uint64_t key_of(const DLTensor* x, int64_t index) {
  const void* data = dscc_data(x);
  if (x->dtype.code == kDLFloat) {
    double value = dscc_real(x, index);
    if (isnan(value)) return UINT64_MAX;
    value += 0.0;
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits >> 63 ? ~bits : bits | (1ull << 63);
  }
  int is_signed = x->dtype.code == kDLInt;
  const uint64_t top = is_signed ? 1ull << 63 : 0;
  switch (x->dtype.bits) {
    case 8: return (is_signed ? (uint64_t)(int64_t)((const int8_t*)data)[index] : ((const uint8_t*)data)[index]) ^ top;
    case 16: return (is_signed ? (uint64_t)(int64_t)((const int16_t*)data)[index] : ((const uint16_t*)data)[index]) ^ top;
    case 32: return (is_signed ? (uint64_t)(int64_t)((const int32_t*)data)[index] : ((const uint32_t*)data)[index]) ^ top;
    default: return ((const uint64_t*)data)[index] ^ top;
  }
}

typedef struct {
  uint64_t key;
  int64_t index;
} Entry;

// The greater key first, of equal ones the lower index.
static int precedes(const Entry* a, const Entry* b) { return a->key != b->key ? a->key > b->key : a->index < b->index; }

static int by_rank(const void* a, const void* b) { return precedes((const Entry*)a, (const Entry*)b) ? -1 : 1; }

// Restores a heap whose root, the one that all others precede, was replaced.
static void sink(Entry* heap, int64_t count) {
  for (int64_t at = 0, child; (child = 2 * at + 1) < count; at = child) {
    if (child + 1 < count && precedes(&heap[child], &heap[child + 1])) ++child;
    if (!precedes(&heap[at], &heap[child])) return;
    Entry moved = heap[at];
    heap[at] = heap[child];
    heap[child] = moved;
  }
}

// The first k of n in order, in entries[0..k).
static void select_first(Entry* entries, int64_t n, int64_t k) {
  if (k < n) {
    for (int64_t root = k / 2 - 1; root >= 0; --root) {  // a heap of the first k
      for (int64_t at = root, child; (child = 2 * at + 1) < k; at = child) {
        if (child + 1 < k && precedes(&entries[child], &entries[child + 1])) ++child;
        if (!precedes(&entries[at], &entries[child])) break;
        Entry moved = entries[at];
        entries[at] = entries[child];
        entries[child] = moved;
      }
    }
    for (int64_t i = k; i < n && k > 0; ++i) {
      if (!precedes(&entries[i], &entries[0])) continue;
      entries[0] = entries[i];
      sink(entries, k);
    }
  }
  qsort(entries, (size_t)k, sizeof(Entry), by_rank);
}

typedef struct {
  const DLTensor* x;
  int64_t n, after, k, largest;
  int64_t* out;
  int failed;
} TopK;

static void top_lines(int64_t begin, int64_t end, void* data) {
  TopK* job = (TopK*)data;
  Entry* entries = (Entry*)malloc((size_t)(job->n + 1) * sizeof(Entry));
  if (entries == NULL) {
    job->failed = 1;
    return;
  }
  for (int64_t line = begin; line < end; ++line) {
    int64_t first = line / job->after * job->n * job->after + line % job->after;
    for (int64_t i = 0; i < job->n; ++i) {
      uint64_t key = key_of(job->x, first + i * job->after);
      entries[i] = (Entry){job->largest ? key : ~key, i};
    }
    select_first(entries, job->n, job->k);
    int64_t* out = job->out + line / job->after * job->k * job->after + line % job->after;
    for (int64_t i = 0; i < job->k; ++i) out[i * job->after] = entries[i].index;
  }
  free(entries);
}

// dscc.top_k(vm, x (before, n, after), [k, largest]): indices (before, k, after) of int64 along the middle axis, the
// greatest (or least) first; equal ones keep their order.
DSCC_FUNCTION(top_k) {
  (void)self, (void)count;
  const DLTensor* x = dscc_tensor(&args[1]);
  const int64_t* options = dscc_numbers(&args[2], NULL);
  if (options[0] < 0 || options[0] > x->shape[1]) return dscc_fail("ValueError", "TopK: k is greater than the dimension");
  int64_t shape[3] = {x->shape[0], options[0], x->shape[2]};
  TVMFFIObjectHandle out = dscc_new_tensor(3, shape, (DLDataType){kDLInt, 64, 1});
  if (out == NULL) return -1;
  dscc_set_object(result, out);
  TopK job = {x, x->shape[1], x->shape[2], options[0], options[1], (int64_t*)dscc_data(dscc_tensor(result)), 0};
  dscc_parallel(shape[0] * shape[2], 8.0 * (double)dscc_elements(x), top_lines, &job);
  return job.failed ? dscc_fail("MemoryError", "there is not enough memory") : 0;
}

typedef struct {
  const uint64_t* keys;  // `width` of them each
  int64_t width, index;
} Row;

static int compare_rows(const void* a, const void* b) {
  const Row *x = (const Row*)a, *y = (const Row*)b;
  for (int64_t i = 0; i < x->width; ++i)
    if (x->keys[i] != y->keys[i]) return x->keys[i] < y->keys[i] ? -1 : 1;
  return x->index < y->index ? -1 : 1;
}

static int same_row(const Row* x, const Row* y) {
  return memcmp(x->keys, y->keys, (size_t)x->width * sizeof(uint64_t)) == 0;
}

// dscc.unique(vm, x (before, n, after), [sorted]): of the slices along the middle axis the index of the first of each
// distinct one, for each slice which distinct one it is, and how often each occurs: int64, (u,), (n,), (u,). They are in
// ascending order, or in that of their first occurrence.
DSCC_FUNCTION(unique) {
  (void)self, (void)count;
  const DLTensor* x = dscc_tensor(&args[1]);
  int sorted = (int)dscc_numbers(&args[2], NULL)[0];
  int64_t before = x->shape[0], n = x->shape[1], after = x->shape[2], width = before * after, distinct = 0;
  uint64_t* keys = (uint64_t*)malloc((size_t)(n * width + 1) * sizeof(uint64_t));
  Row* rows = (Row*)malloc((size_t)(n + 1) * sizeof(Row));
  int64_t* work = (int64_t*)malloc((size_t)(4 * n + 1) * sizeof(int64_t));
  int status = -1;
  if (keys == NULL || rows == NULL || work == NULL) {
    dscc_fail("MemoryError", "there is not enough memory");
    goto end;
  }
  int64_t *group = work, *first = work + n, *times = work + 2 * n, *place = work + 3 * n;
  for (int64_t i = 0; i < n; ++i) {
    rows[i] = (Row){keys + i * width, width, i};
    for (int64_t b = 0; b < before; ++b)
      for (int64_t a = 0; a < after; ++a) keys[i * width + b * after + a] = key_of(x, (b * n + i) * after + a);
  }
  qsort(rows, (size_t)n, sizeof(Row), compare_rows);
  for (int64_t i = 0; i < n; ++i) {
    if (i == 0 || !same_row(&rows[i - 1], &rows[i])) {
      first[distinct] = rows[i].index;  // the lowest of them: equal rows are sorted by index
      times[distinct++] = 0;
    }
    ++times[distinct - 1];
    group[rows[i].index] = distinct - 1;
  }
  for (int64_t g = 0; g < distinct; ++g) place[g] = g;
  if (!sorted) {  // a group's place is how many groups have begun before it
    for (int64_t i = 0, begun = 0; i < n; ++i)
      if (first[group[i]] == i) place[group[i]] = begun++;
  }
  TVMFFIAny parts[3];
  const int64_t sizes[3] = {distinct, n, distinct};
  for (int i = 0; i < 3; ++i) {
    TVMFFIObjectHandle part = dscc_new_tensor(1, &sizes[i], (DLDataType){kDLInt, 64, 1});
    if (part == NULL) {
      while (i > 0) dscc_drop(&parts[--i]);
      goto end;
    }
    dscc_set_object(&parts[i], part);
  }
  int64_t* out[3];
  for (int i = 0; i < 3; ++i) out[i] = (int64_t*)dscc_data(dscc_tensor(&parts[i]));
  for (int64_t g = 0; g < distinct; ++g) {
    out[0][place[g]] = first[g];
    out[2][place[g]] = times[g];
  }
  for (int64_t i = 0; i < n; ++i) out[1][i] = place[group[i]];
  status = dscc_set_array(result, parts, 3);
end:
  free(keys);
  free(rows);
  free(work);
  return status;
}

// dscc.nonzero(vm, x of bool): the indices of its true elements in order, int64 (rank, count).
DSCC_FUNCTION(nonzero) {
  (void)self, (void)count;
  const DLTensor* x = dscc_tensor(&args[1]);
  const uint8_t* data = (const uint8_t*)dscc_data(x);
  int64_t size = dscc_elements(x), found = 0;
  for (int64_t i = 0; i < size; ++i) found += data[i] != 0;
  int64_t shape[2] = {x->ndim, found};
  TVMFFIObjectHandle out = dscc_new_tensor(2, shape, (DLDataType){kDLInt, 64, 1});
  if (out == NULL) return -1;
  dscc_set_object(result, out);
  int64_t *indices = (int64_t*)dscc_data(dscc_tensor(result)), at = 0;
  for (int64_t i = 0; i < size; ++i) {
    if (data[i] == 0) continue;
    for (int64_t axis = x->ndim - 1, rest = i; axis >= 0; --axis) {
      indices[axis * found + at] = rest % x->shape[axis];
      rest /= x->shape[axis];
    }
    ++at;
  }
  return 0;
}
