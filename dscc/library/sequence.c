// Sequences and optionals: array objects of tensors, an optional one of no or one item.

#include "dscc.h"

static int64_t items_of(const TVMFFIAny* array, const TVMFFIAny** items) {
  int64_t size;
  *items = dscc_items(array, &size);
  return size;
}

static int set_scalar(TVMFFIAny* result, int64_t value, DLDataType dtype) {
  TVMFFIObjectHandle made = dscc_new_tensor(0, NULL, dtype);
  if (made == NULL) return -1;
  void* data = dscc_data((DLTensor*)((char*)made + sizeof(TVMFFIObject)));
  if (dtype.bits == 8) *(uint8_t*)data = (uint8_t)value;
  else *(int64_t*)data = value;
  dscc_set_object(result, made);
  return 0;
}

// A position from 0 to count - 1, from one that is counted from the end if it is negative; -1 after an error.
static int64_t position(const TVMFFIAny* value, int64_t count) {
  int64_t at = dscc_integer(dscc_tensor(value));
  if (at < 0) at += count;
  if (at >= 0 && at < count) return at;
  dscc_fail("ValueError", "a position in a sequence is out of range");
  return -1;
}

// dscc.sequence(vm, items...)
DSCC_FUNCTION(sequence) {
  (void)self;
  return dscc_array(args + 1, count - 1, result);
}

// dscc.sequence_length(vm, sequence)
DSCC_FUNCTION(sequence_length) {
  (void)self, (void)count;
  const TVMFFIAny* items;
  return set_scalar(result, items_of(&args[1], &items), (DLDataType){kDLInt, 64, 1});
}

// dscc.sequence_at(vm, sequence, position)
DSCC_FUNCTION(sequence_at) {
  (void)self, (void)count;
  const TVMFFIAny* items;
  int64_t size = items_of(&args[1], &items), at = position(&args[2], size);
  if (at < 0) return -1;
  dscc_keep(&items[at]);
  *result = items[at];
  return 0;
}

// dscc.sequence_insert(vm, sequence, tensor, [position])
DSCC_FUNCTION(sequence_insert) {
  (void)self;
  const TVMFFIAny* items;
  int64_t size = items_of(&args[1], &items), at = count > 3 ? position(&args[3], size + 1) : size;
  if (count > 3 && dscc_integer(dscc_tensor(&args[3])) < 0) --at;  // from the end of what there is, not of the result
  if (at < 0) return dscc_fail("ValueError", "a position in a sequence is out of range");
  TVMFFIAny* all = malloc(sizeof(TVMFFIAny) * (size_t)(size + 1));
  if (all == NULL) return dscc_fail("MemoryError", "there is not enough memory");
  memcpy(all, items, sizeof(TVMFFIAny) * (size_t)at);
  all[at] = args[2];
  memcpy(all + at + 1, items + at, sizeof(TVMFFIAny) * (size_t)(size - at));
  int status = dscc_array(all, (int32_t)(size + 1), result);
  free(all);
  return status;
}

// dscc.sequence_erase(vm, sequence, [position])
DSCC_FUNCTION(sequence_erase) {
  (void)self;
  const TVMFFIAny* items;
  int64_t size = items_of(&args[1], &items), at = count > 2 ? position(&args[2], size) : size - 1;
  if (at < 0) return size ? -1 : dscc_fail("ValueError", "an empty sequence has no element to erase");
  TVMFFIAny* rest = malloc(sizeof(TVMFFIAny) * (size_t)size);
  if (rest == NULL) return dscc_fail("MemoryError", "there is not enough memory");
  memcpy(rest, items, sizeof(TVMFFIAny) * (size_t)at);
  memcpy(rest + at, items + at + 1, sizeof(TVMFFIAny) * (size_t)(size - 1 - at));
  int status = dscc_array(rest, (int32_t)(size - 1), result);
  free(rest);
  return status;
}

static int64_t product(const int64_t* shape, int from, int to) {
  int64_t found = 1;
  for (int axis = from; axis < to; ++axis) found *= shape[axis];
  return found;
}

// dscc.sequence_split(vm, tensor, (axis, drops the axis), [size or sizes]): slices along an axis, of 1 without sizes.
DSCC_FUNCTION(sequence_split) {
  (void)self;
  const DLTensor* whole = dscc_tensor(&args[1]);
  const int64_t* plan = dscc_numbers(&args[2], NULL);
  const int axis = (int)plan[0], dropped = (int)plan[1], ndim = whole->ndim;
  const DLTensor* sizes = count > 3 ? dscc_tensor(&args[3]) : NULL;
  const int listed = sizes != NULL && sizes->ndim == 1;
  const int64_t extent = whole->shape[axis], uniform = sizes == NULL ? 1 : listed ? 0 : dscc_integer(sizes);
  if (sizes != NULL && !listed && uniform < 1) return dscc_fail("ValueError", "the size of slices must be 1 or more");
  const int64_t number = listed ? sizes->shape[0] : (extent + uniform - 1) / uniform;
  const int64_t outer = product(whole->shape, 0, axis);
  const size_t inner = (size_t)product(whole->shape, axis + 1, ndim) * whole->dtype.bits / 8;
  TVMFFIAny* parts = calloc((size_t)number + 1, sizeof(TVMFFIAny));
  if (parts == NULL) return dscc_fail("MemoryError", "there is not enough memory");
  int64_t start = 0, made = 0;
  int status = -1;
  for (; made < number; ++made) {
    int64_t size = uniform < extent - start ? uniform : extent - start, shape[ndim + 1];
    if (listed) {
      DLTensor one = *sizes;
      one.byte_offset += (uint64_t)made * sizes->dtype.bits / 8;
      size = dscc_integer(&one);
    }
    if (size < 0 || start + size > extent) {
      dscc_fail("ValueError", "the sizes of slices do not add up to the extent of the axis");
      goto done;
    }
    memcpy(shape, whole->shape, sizeof(int64_t) * (size_t)ndim);
    shape[axis] = size;
    if (dropped) memmove(shape + axis, shape + axis + 1, sizeof(int64_t) * (size_t)(ndim - axis - 1));
    TVMFFIObjectHandle part = dscc_new_tensor(ndim - dropped, shape, whole->dtype);
    if (part == NULL) goto done;
    dscc_set_object(&parts[made], part);
    char* to = dscc_data(dscc_tensor(&parts[made]));
    const char* from = (const char*)dscc_data(whole) + inner * (size_t)start;
    for (int64_t i = 0; i < outer; ++i) {
      memcpy(to + inner * (size_t)(size * i), from + inner * (size_t)(extent * i), inner * (size_t)size);
    }
    start += size;
  }
  if (start != extent) dscc_fail("ValueError", "the sizes of slices do not add up to the extent of the axis");
  else status = dscc_array(parts, (int32_t)number, result);
done:
  for (int64_t i = 0; i < number; ++i) dscc_drop(&parts[i]);
  free(parts);
  return status;
}

// dscc.sequence_concat(vm, sequence, (axis, stacks)): the tensors joined along an axis, or stacked along a new one.
DSCC_FUNCTION(sequence_concat) {
  (void)self, (void)count;
  const TVMFFIAny* items;
  const int64_t size = items_of(&args[1], &items), *plan = dscc_numbers(&args[2], NULL);
  const int axis = (int)plan[0], stacks = (int)plan[1];
  if (size == 0) return dscc_fail("ValueError", "the sequence to be joined is empty");
  const DLTensor* first = dscc_tensor(&items[0]);
  const int ndim = first->ndim;
  int64_t extent = 0, shape[ndim + 1];
  for (int64_t i = 0; i < size; ++i) {
    const DLTensor* item = dscc_tensor(&items[i]);
    int fits = item->ndim == ndim;
    for (int d = 0; d < ndim && fits; ++d) fits = (d == axis && !stacks) || item->shape[d] == first->shape[d];
    if (!fits) return dscc_fail("ValueError", "the tensors of the sequence to be joined differ in shape");
    extent += stacks ? 1 : item->shape[axis];
  }
  memcpy(shape, first->shape, sizeof(int64_t) * (size_t)ndim);
  if (stacks) memmove(shape + axis + 1, shape + axis, sizeof(int64_t) * (size_t)(ndim - axis));
  shape[axis] = extent;
  TVMFFIObjectHandle made = dscc_new_tensor(ndim + stacks, shape, first->dtype);
  if (made == NULL) return -1;
  dscc_set_object(result, made);
  char* to = dscc_data(dscc_tensor(result));
  const int64_t outer = product(shape, 0, axis);
  const size_t inner = (size_t)product(shape, axis + 1, ndim + stacks) * first->dtype.bits / 8;
  for (int64_t i = 0, start = 0; i < size; ++i) {
    const DLTensor* item = dscc_tensor(&items[i]);
    const size_t bytes = inner * (size_t)(stacks ? 1 : item->shape[axis]);
    for (int64_t row = 0; row < outer; ++row) {
      memcpy(to + inner * (size_t)(extent * row + start), (const char*)dscc_data(item) + bytes * (size_t)row, bytes);
    }
    start += stacks ? 1 : item->shape[axis];
  }
  return 0;
}

// dscc.optional_has(vm, optional)
DSCC_FUNCTION(optional_has) {
  (void)self, (void)count;
  const TVMFFIAny* items;
  return set_scalar(result, items_of(&args[1], &items), (DLDataType){kDLBool, 8, 1});
}

// dscc.optional_get(vm, optional)
DSCC_FUNCTION(optional_get) {
  (void)self, (void)count;
  const TVMFFIAny* items;
  if (items_of(&args[1], &items) == 0) return dscc_fail("ValueError", "an optional value is asked for, and there is none");
  dscc_keep(&items[0]);
  *result = items[0];
  return 0;
}
