// Which of many overlapping boxes to keep.
//
// A box is compared with the boxes kept before it that could touch it, not with all: of tens of thousands of boxes of
// many classes, which detectors move apart so that one call serves all classes, few touch. The axis along which the
// boxes are spread most is divided into stripes as wide as a box is on average, and every stripe lists the kept boxes
// that lie in it. Two boxes that have an area in common have a stripe in common, because the number of a stripe never
// falls where the coordinate grows.

#include <math.h>

#include "dscc.h"

typedef struct {
  uint32_t key;
  int64_t index;
} Candidate;

// A number that falls as the score grows, the same for both zeros.
static uint32_t key_of(float score) {
  uint32_t bits;
  score += 0.0f;
  memcpy(&bits, &score, sizeof(bits));
  return bits >> 31 ? bits : bits ^ 0x7fffffff;
}

enum { DIGIT = 11, DIGITS = 3, VALUES = 1 << DIGIT };

// Sorts by key, equal ones by index, which is their order at the start: digit by digit, from the lowest on. Returns
// where the result is: in `from`, or in `to`, which has the same room.
static Candidate* sort(Candidate* from, Candidate* to, int64_t count) {
  int64_t places[VALUES];
  for (int digit = 0; digit < DIGITS && count > 1; ++digit) {
    memset(places, 0, sizeof(places));
    for (int64_t i = 0; i < count; ++i) ++places[from[i].key >> digit * DIGIT & (VALUES - 1)];
    for (int64_t value = 0, at = 0; value < VALUES; ++value) {
      int64_t size = places[value];
      places[value] = at;
      at += size;
    }
    for (int64_t i = 0; i < count; ++i) to[places[from[i].key >> digit * DIGIT & (VALUES - 1)]++] = from[i];
    Candidate* done = to;
    to = from;
    from = done;
  }
  return from;
}

typedef struct {
  float low[2], high[2], area;  // x, y
} Box;

static Box box_of(const float* corners, int centred) {
  Box box;
  for (int axis = 0; axis < 2; ++axis)
    if (centred) {  // x, y of the centre, width, height
      box.low[axis] = corners[axis] - corners[2 + axis] / 2;
      box.high[axis] = corners[axis] + corners[2 + axis] / 2;
    } else {  // y, x of two opposite corners
      box.low[axis] = fminf(corners[1 - axis], corners[3 - axis]);
      box.high[axis] = fmaxf(corners[1 - axis], corners[3 - axis]);
    }
  box.area = (box.high[0] - box.low[0]) * (box.high[1] - box.low[1]);
  return box;
}

// Whether a box can overlap anything. None of its coordinates is NaN then.
static int is_solid(const Box* box) { return box->area > 0 && box->high[0] > box->low[0]; }

static int overlap(const Box* a, const Box* b, float threshold) {  // both are solid
  float size[2];
  for (int axis = 0; axis < 2; ++axis) {
    float low = a->low[axis] > b->low[axis] ? a->low[axis] : b->low[axis];
    float high = a->high[axis] < b->high[axis] ? a->high[axis] : b->high[axis];
    size[axis] = high - low;
    if (size[axis] <= 0) return 0;
  }
  float common = size[0] * size[1], both = a->area + b->area - common;
  return common > 0 && both > 0 && common / both > threshold;
}

typedef struct {
  int axis;
  int64_t count;
  double origin, scale;
  int64_t *first, *end;  // stripe s lists members[first[s]] to members[end[s] - 1]
  Box* members;
} Stripes;

static int64_t stripe_of(const Stripes* stripes, float at) {
  double place = (at - stripes->origin) * stripes->scale;
  if (!(place > 0)) return 0;  // NaN too: the scale of infinite boxes is 0
  return place < (double)stripes->count ? (int64_t)place : stripes->count - 1;
}

// Makes empty stripes with room for all of the boxes. There are at most as many stripes as boxes, and of members three
// times as many: a box lies in one more stripe than it has ends in, and all of them together are as long as there are
// boxes, in stripes.
static void divide(Stripes* stripes, const Box* boxes, int64_t count) {
  double low[2] = {INFINITY, INFINITY}, high[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0}, solid = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (!is_solid(&boxes[i])) continue;
    ++solid;
    for (int axis = 0; axis < 2; ++axis) {
      if (boxes[i].low[axis] < low[axis]) low[axis] = boxes[i].low[axis];
      if (boxes[i].high[axis] > high[axis]) high[axis] = boxes[i].high[axis];
      total[axis] += (double)boxes[i].high[axis] - boxes[i].low[axis];
    }
  }
  double range[2] = {high[0] - low[0], high[1] - low[1]};
  int axis = range[1] * total[0] > range[0] * total[1];
  double wanted = fmin(range[axis] / total[axis], 1) * solid;
  stripes->axis = axis;
  stripes->count = wanted > 1 ? (int64_t)wanted : 1;
  stripes->origin = low[axis];
  stripes->scale = (double)stripes->count / range[axis];
  memset(stripes->end, 0, (size_t)stripes->count * sizeof(int64_t));
  for (int64_t i = 0; i < count; ++i)
    if (is_solid(&boxes[i])) {
      int64_t last = stripe_of(stripes, boxes[i].high[axis]);
      for (int64_t s = stripe_of(stripes, boxes[i].low[axis]); s <= last; ++s) ++stripes->end[s];
    }
  for (int64_t s = 0, at = 0; s < stripes->count; ++s) {
    int64_t size = stripes->end[s];
    stripes->first[s] = stripes->end[s] = at;
    at += size;
  }
}

// Lists the box, unless it overlaps one that is listed: returns whether it is kept.
static int keep(Stripes* stripes, const Box* box, float threshold) {
  if (!is_solid(box)) return 1;
  int64_t begin = stripe_of(stripes, box->low[stripes->axis]), last = stripe_of(stripes, box->high[stripes->axis]);
  for (int64_t s = begin; s <= last; ++s)
    for (int64_t k = stripes->first[s]; k < stripes->end[s]; ++k)
      if (overlap(box, &stripes->members[k], threshold)) return 0;
  for (int64_t s = begin; s <= last; ++s) stripes->members[stripes->end[s]++] = *box;
  return 1;
}

typedef struct {
  const float *boxes, *scores;
  int64_t classes, n, most;
  int centred, has_least;
  float threshold, least;
  int64_t *kept, *counts;  // `most` indices and one count for each class of each image
  int failed;
} Suppression;

static void suppress(int64_t begin, int64_t end, void* data) {
  Suppression* job = (Suppression*)data;
  size_t room = (size_t)job->n + 1;
  Candidate* candidates = (Candidate*)malloc(2 * room * sizeof(Candidate));
  Box* boxes = (Box*)malloc(4 * room * sizeof(Box));
  int64_t* places = (int64_t*)malloc(2 * room * sizeof(int64_t));
  if (candidates == NULL || boxes == NULL || places == NULL) job->failed = 1;
  for (int64_t at = begin; at < end && !job->failed; ++at) {
    const float *corners = job->boxes + at / job->classes * job->n * 4, *scores = job->scores + at * job->n;
    Stripes stripes = {0, 0, 0, 0, places, places + room, boxes + room};
    int64_t found = 0, count = 0;
    for (int64_t i = 0; i < job->n && job->most > 0; ++i)
      if (!job->has_least || scores[i] > job->least) candidates[count++] = (Candidate){key_of(scores[i]), i};
    const Candidate* sorted = sort(candidates, candidates + room, count);
    for (int64_t i = 0; i < count; ++i) boxes[i] = box_of(corners + sorted[i].index * 4, job->centred);
    divide(&stripes, boxes, count);
    for (int64_t i = 0; i < count && found < job->most; ++i)
      if (keep(&stripes, &boxes[i], job->threshold)) job->kept[at * job->most + found++] = sorted[i].index;
    job->counts[at] = found;
  }
  free(candidates);
  free(boxes);
  free(places);
}

// dscc.non_max_suppression(vm, boxes (b, n, 4), scores (b, c, n), threshold, least, [most, centred, has_least]): rows of
// image, class, box, int64 (kept, 3): per class the boxes of the highest scores that overlap none kept before by more
// than `threshold` (intersection over union). All floats are float32; the two numbers are tensors of one element.
DSCC_FUNCTION(non_max_suppression) {
  (void)self, (void)count;
  const DLTensor *boxes = dscc_tensor(&args[1]), *scores = dscc_tensor(&args[2]);
  const int64_t* options = dscc_numbers(&args[5], NULL);
  int64_t classes = scores->shape[1], n = scores->shape[2], lists = scores->shape[0] * classes, total = 0;
  int64_t most = options[0] < 0 ? 0 : options[0] > n ? n : options[0];
  int64_t* kept = (int64_t*)malloc((size_t)(lists * (most + 1) + 1) * sizeof(int64_t));
  if (kept == NULL) return dscc_fail("MemoryError", "there is not enough memory");
  Suppression job = {(const float*)dscc_data(boxes),
                     (const float*)dscc_data(scores),
                     classes,
                     n,
                     most,
                     (int)options[1],
                     (int)options[2],
                     *(const float*)dscc_data(dscc_tensor(&args[3])),
                     *(const float*)dscc_data(dscc_tensor(&args[4])),
                     kept,
                     kept + lists * most,
                     0};
  dscc_parallel(lists, 16.0 * (double)(lists * n), suppress, &job);
  if (job.failed) {
    free(kept);
    return dscc_fail("MemoryError", "there is not enough memory");
  }
  for (int64_t at = 0; at < lists; ++at) total += job.counts[at];
  int64_t shape[2] = {total, 3};
  TVMFFIObjectHandle out = dscc_new_tensor(2, shape, (DLDataType){kDLInt, 64, 1});
  if (out != NULL) {
    dscc_set_object(result, out);
    int64_t* row = (int64_t*)dscc_data(dscc_tensor(result));
    for (int64_t at = 0; at < lists; ++at)
      for (int64_t i = 0; i < job.counts[at]; ++i, row += 3)
        row[0] = at / classes, row[1] = at % classes, row[2] = kept[at * most + i];
  }
  free(kept);
  return out == NULL ? -1 : 0;
}
