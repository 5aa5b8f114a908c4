// Ensembles of decision trees: which leaf every tree sends a row of features to, and what the leaves add up to.

#include <math.h>

#include "dscc.h"

enum { LANES = 8 };  // walks at once: they wait for memory side by side
enum { SUM, AVERAGE, LEAST, MOST };
enum { LEQ, GTE, GT, EQ, NEQ, MODE = 7, NAN_IS_TRUE = 8 };  // flags of a node

typedef struct {
  int32_t feature, next[2], flags;  // next: if the comparison fails, and if it holds; a leaf leads to itself
} Node;

typedef struct {
  const void *x, *thresholds;
  const Node* nodes;
  const int32_t (*spans)[2];  // of a node's weights: the first one, and their number
  const int32_t* targets;     // of a weight
  const double* weights;
  const int32_t (*roots)[2];  // of a tree: its root, and the most steps from there to a leaf
  float* sums;                // of row, target; or as doubles
  int64_t columns, trees, count, how;
  int is_double, is_plain;  // plain: every node compares by LEQ
  int fails;                // there was no memory
} Forest;

// Leaves for LANES pairs of a row and a place to begin.
#define WALK(NAME, TYPE, HOLDS)                                                                       \
  static void NAME(const Forest* f, const int64_t* rows, int32_t* at, int32_t depth) {                \
    const TYPE* thresholds = (const TYPE*)f->thresholds;                                              \
    const Node* nodes = f->nodes;                                                                     \
    const TYPE* x[LANES];                                                                             \
    for (int lane = 0; lane < LANES; ++lane) x[lane] = (const TYPE*)f->x + rows[lane] * f->columns;   \
    for (int32_t step = 0; step < depth; ++step) {                                                    \
      int32_t moved = 0;                                                                              \
      _Pragma("GCC unroll 8") for (int lane = 0; lane < LANES; ++lane) {                              \
        const Node* node = &nodes[at[lane]];                                                          \
        TYPE value = x[lane][node->feature], threshold = thresholds[at[lane]];                        \
        int holds = (HOLDS) | ((value != value) & (node->flags >= NAN_IS_TRUE));                      \
        int32_t next = node->next[holds];                                                             \
        moved |= next ^ at[lane];                                                                     \
        at[lane] = next;                                                                              \
      }                                                                                               \
      if (!moved) return;                                                                             \
    }                                                                                                 \
  }

static int compares(double value, double threshold, int mode) {
  switch (mode) {
    case GTE: return value >= threshold;
    case GT: return value > threshold;
    case EQ: return value == threshold;
    case NEQ: return value != threshold;
    default: return value <= threshold;
  }
}

WALK(walk_floats, float, value <= threshold)
WALK(walk_doubles, double, value <= threshold)
WALK(walk_floats_by_mode, float, compares(value, threshold, node->flags & MODE))
WALK(walk_doubles_by_mode, double, compares(value, threshold, node->flags & MODE))

static void walk(const Forest* f, const int64_t* rows, int32_t* at, int32_t depth) {
  if (f->is_double)
    (f->is_plain ? walk_doubles : walk_doubles_by_mode)(f, rows, at, depth);
  else
    (f->is_plain ? walk_floats : walk_floats_by_mode)(f, rows, at, depth);
}

static void add_leaf(const Forest* f, int32_t leaf, double* sums) {
  for (int32_t i = f->spans[leaf][0], end = i + f->spans[leaf][1]; i < end; ++i) {
    double *sum = &sums[f->targets[i]], weight = f->weights[i];
    if (f->how == SUM || f->how == AVERAGE)
      *sum += weight;
    else if (f->how == LEAST)
      *sum = weight < *sum ? weight : *sum;
    else
      *sum = weight > *sum ? weight : *sum;
  }
}

static void store(const Forest* f, int64_t row, const double* sums) {
  for (int64_t target = 0; target < f->count; ++target) {
    double sum = isinf(sums[target]) ? 0 : sums[target];  // no leaf had this target
    if (f->how == AVERAGE) sum /= (double)f->trees;
    if (f->is_double)
      ((double*)f->sums)[row * f->count + target] = sum;
    else
      f->sums[row * f->count + target] = (float)sum;
  }
}

static void rows_of(int64_t begin, int64_t end, void* data) {
  Forest* f = (Forest*)data;
  double few[LANES * 64];
  double* sums = f->count <= 64 ? few : malloc((size_t)f->count * LANES * sizeof(double));
  const double start = f->how == LEAST ? INFINITY : f->how == MOST ? -INFINITY : 0;
  int64_t rows[LANES];
  int32_t at[LANES];
  if (sums == NULL) f->fails = 1;
  for (; begin < end && sums != NULL; begin += LANES) {
    int64_t now = end - begin < LANES ? end - begin : LANES;
    for (int64_t i = 0; i < now * f->count; ++i) sums[i] = start;
    if (now == LANES) {  // as many rows in one tree
      for (int lane = 0; lane < LANES; ++lane) rows[lane] = begin + lane;
      for (int64_t tree = 0; tree < f->trees; ++tree) {
        for (int lane = 0; lane < LANES; ++lane) at[lane] = f->roots[tree][0];
        walk(f, rows, at, f->roots[tree][1]);
        for (int lane = 0; lane < LANES; ++lane) add_leaf(f, at[lane], sums + lane * f->count);
      }
    } else {  // one row in as many trees
      for (int64_t row = 0; row < now; ++row) {
        for (int64_t tree = 0; tree < f->trees; tree += LANES) {
          int32_t depth = 0;
          for (int lane = 0; lane < LANES; ++lane) {
            const int32_t* root = f->roots[tree + lane < f->trees ? tree + lane : tree];
            rows[lane] = begin + row;
            at[lane] = root[0];
            depth = root[1] > depth ? root[1] : depth;
          }
          walk(f, rows, at, depth);
          for (int lane = 0; lane < LANES && tree + lane < f->trees; ++lane) add_leaf(f, at[lane], sums + row * f->count);
        }
      }
    }
    for (int64_t row = 0; row < now; ++row) store(f, begin + row, sums + row * f->count);
  }
  if (sums != few) free(sums);
}

// (x of rows and columns, nodes, thresholds, spans, targets, weights, roots, [targets, how, plain]) -> rows, targets.
DSCC_FUNCTION(tree_ensemble) {
  const DLTensor *x = dscc_tensor(&args[1]), *thresholds = dscc_tensor(&args[3]), *roots = dscc_tensor(&args[7]);
  const int64_t* options = dscc_numbers(&args[8], NULL);
  int64_t shape[2] = {x->shape[0], options[0]};
  TVMFFIObjectHandle made = dscc_new_tensor(2, shape, x->dtype);
  if (made == NULL) return -1;
  dscc_set_object(result, made);
  Forest forest = {
      .x = dscc_data(x),
      .thresholds = dscc_data(thresholds),
      .nodes = (const Node*)dscc_data(dscc_tensor(&args[2])),
      .spans = (const int32_t(*)[2])dscc_data(dscc_tensor(&args[4])),
      .targets = (const int32_t*)dscc_data(dscc_tensor(&args[5])),
      .weights = (const double*)dscc_data(dscc_tensor(&args[6])),
      .roots = (const int32_t(*)[2])dscc_data(roots),
      .sums = (float*)dscc_data(dscc_tensor(result)),
      .columns = x->shape[1],
      .trees = roots->shape[0],
      .count = options[0],
      .how = options[1],
      .is_double = x->dtype.bits == 64,
      .is_plain = options[2] != 0,
  };
  dscc_parallel(shape[0], (double)shape[0] * (double)forest.trees * 16, rows_of, &forest);
  return forest.fails ? dscc_fail("MemoryError", "there is not enough memory") : 0;
}
