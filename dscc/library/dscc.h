// What the C functions of this folder have in common; `__init__.py` says how one is added.

#ifndef DSCC_LIBRARY_H_
#define DSCC_LIBRARY_H_

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <tvm/ffi/c_api.h>

// Defines the function that the graph calls as "dscc.NAME", by the calling convention of TVM's functions. args[0] is
// TVM's virtual machine, the graph's arguments follow. It returns 0, or -1 after `dscc_fail`. `*result` is None at the
// start; an object stored there is owned by the caller.
#define DSCC_FUNCTION(NAME)                                                                            \
  __attribute__((visibility("default"))) int dscc_##NAME(void* self, const TVMFFIAny* args, int32_t count, \
                                                         TVMFFIAny* result) __asm__("__tvm_ffi_dscc." #NAME); \
  int dscc_##NAME(void* self, const TVMFFIAny* args, int32_t count, TVMFFIAny* result)

enum { DSCC_ALIGN = 64 };  // of every tensor: kernels load and store whole vectors

// Raises an error, as in `return dscc_fail("ValueError", "position is out of range");`
static inline int dscc_fail(const char* kind, const char* message) {
  TVMFFIErrorSetRaisedFromCStr(kind, message);
  return -1;
}

// The tensor in a value; it has to be one.
static inline DLTensor* dscc_tensor(const TVMFFIAny* value) {
  return value->type_index == kTVMFFIDLTensorPtr ? (DLTensor*)value->v_ptr
                                                 : (DLTensor*)((char*)value->v_obj + sizeof(TVMFFIObject));
}

static inline void* dscc_data(const DLTensor* tensor) { return (char*)tensor->data + tensor->byte_offset; }

static inline int64_t dscc_elements(const DLTensor* tensor) {
  int64_t count = 1;
  for (int axis = 0; axis < tensor->ndim; ++axis) count *= tensor->shape[axis];
  return count;
}

static inline size_t dscc_bytes(const DLTensor* tensor) {
  return ((size_t)dscc_elements(tensor) * tensor->dtype.bits * tensor->dtype.lanes + 7) / 8;
}

// The items of an array object (a sequence, a tuple) or the numbers of a shape; borrowed from it.
static inline const TVMFFIAny* dscc_items(const TVMFFIAny* array, int64_t* size) {
  const TVMFFISeqCell* cell = (const TVMFFISeqCell*)((char*)array->v_obj + sizeof(TVMFFIObject));
  *size = cell->size;
  return (const TVMFFIAny*)cell->data;
}

static inline const int64_t* dscc_numbers(const TVMFFIAny* shape, int64_t* size) {
  const TVMFFIShapeCell* cell = (const TVMFFIShapeCell*)((char*)shape->v_obj + sizeof(TVMFFIObject));
  if (size) *size = (int64_t)cell->size;
  return cell->data;
}

// The one integer of a tensor of any integer or bool type.
static inline int64_t dscc_integer(const DLTensor* tensor) {
  const void* data = dscc_data(tensor);
  int is_signed = tensor->dtype.code == kDLInt;
  switch (tensor->dtype.bits) {
    case 8: return is_signed ? *(const int8_t*)data : *(const uint8_t*)data;
    case 16: return is_signed ? *(const int16_t*)data : *(const uint16_t*)data;
    case 32: return is_signed ? *(const int32_t*)data : (int64_t)*(const uint32_t*)data;
    default: return *(const int64_t*)data;
  }
}

static inline void dscc_set_object(TVMFFIAny* value, TVMFFIObjectHandle object) {  // takes over the reference
  value->type_index = ((TVMFFIObject*)object)->type_index;
  value->zero_padding = 0;
  value->v_obj = (TVMFFIObject*)object;
}

static inline void dscc_drop(TVMFFIAny* value) {
  if (value->type_index >= kTVMFFIStaticObjectBegin) TVMFFIObjectDecRef(value->v_obj);
  value->type_index = kTVMFFINone;
  value->zero_padding = 0;
  value->v_int64 = 0;
}

static inline void dscc_keep(const TVMFFIAny* value) {
  if (value->type_index >= kTVMFFIStaticObjectBegin) TVMFFIObjectIncRef(value->v_obj);
}

// The strides of a tensor whose elements lie in a row.
static inline void dscc_compact(int64_t ndim, const int64_t* shape, int64_t* strides) {
  int64_t step = 1;
  for (int64_t axis = ndim - 1; axis >= 0; --axis) {
    strides[axis] = step;
    step *= shape[axis];
  }
}

static void dscc_free_tensor(DLManagedTensor* managed) {
  free(managed->manager_ctx);
  free(managed);
}

// A tensor over `data`, which comes from `dscc_allocate` and now belongs to it; NULL after an error.
static inline TVMFFIObjectHandle dscc_wrap(void* data, int ndim, const int64_t* shape, DLDataType dtype) {
  DLManagedTensor* managed = (DLManagedTensor*)malloc(sizeof(DLManagedTensor) + (size_t)ndim * 2 * sizeof(int64_t));
  TVMFFIObjectHandle object = NULL;
  if (managed == NULL) {
    free(data);
    dscc_fail("MemoryError", "there is not enough memory");
    return NULL;
  }
  int64_t *sizes = (int64_t*)(managed + 1), *strides = sizes + ndim;
  for (int axis = 0; axis < ndim; ++axis) sizes[axis] = shape[axis];
  dscc_compact(ndim, sizes, strides);
  managed->dl_tensor = (DLTensor){data, {kDLCPU, 0}, ndim, dtype, sizes, strides, 0};
  managed->manager_ctx = data;
  managed->deleter = dscc_free_tensor;
  if (TVMFFITensorFromDLPack(managed, 0, 0, &object) != 0) {
    dscc_free_tensor(managed);
    return NULL;
  }
  return object;
}

// Aligned memory for the data of a tensor; NULL after an error.
static inline void* dscc_allocate(size_t bytes) {
  void* data = NULL;
  if (posix_memalign(&data, DSCC_ALIGN, bytes < 1 ? 1 : bytes) != 0) {
    dscc_fail("MemoryError", "there is not enough memory");
    return NULL;
  }
  return data;
}

// A new tensor with memory of its own; NULL after an error.
static inline TVMFFIObjectHandle dscc_new_tensor(int ndim, const int64_t* shape, DLDataType dtype) {
  DLTensor wanted = {NULL, {kDLCPU, 0}, ndim, dtype, (int64_t*)shape, NULL, 0};
  void* data = dscc_allocate(dscc_bytes(&wanted));
  return data == NULL ? NULL : dscc_wrap(data, ndim, shape, dtype);
}

// An array object of these items, which stay owned by the caller.
static inline int dscc_array(const TVMFFIAny* items, int32_t count, TVMFFIAny* result) {
  static _Atomic(TVMFFIObjectHandle) make_array;
  TVMFFIObjectHandle function = make_array;
  if (function == NULL) {
    TVMFFIByteArray text = {"ffi.Array", 9};
    if (TVMFFIFunctionGetGlobal(&text, &function) != 0) return -1;
    if (function == NULL) return dscc_fail("RuntimeError", "TVM's runtime lacks ffi.Array");
    make_array = function;  // two threads that come at once both keep it: it lives as long as the process
  }
  return TVMFFIFunctionCall(function, (TVMFFIAny*)items, count, result);
}

// The characters of a string, up to a zero.
static inline const char* dscc_text(const TVMFFIAny* value) {
  if (value->type_index == kTVMFFIRawStr) return value->v_c_str;
  if (value->type_index == kTVMFFISmallStr) return value->v_bytes;
  return ((const TVMFFIByteArray*)((char*)value->v_obj + sizeof(TVMFFIObject)))->data;
}

// The same for items that it takes over.
static inline int dscc_set_array(TVMFFIAny* result, TVMFFIAny* items, int32_t count) {
  int status = dscc_array(items, count, result);
  for (int32_t i = 0; i < count; ++i) dscc_drop(&items[i]);
  return status;
}

// The threads of the library's parallel loops (runtime/parallel.c), where it has them.
typedef struct {
  void* sync;
  int32_t count;
} DsccTeam;
extern int dscc_launch(int (*body)(int task, DsccTeam* team, void* data), void* data, int count)
    __attribute__((weak, visibility("hidden")));

typedef void (*DsccBody)(int64_t begin, int64_t end, void* data);
typedef struct {
  DsccBody body;
  void* data;
  int64_t count;
} DsccLoop;

static inline int dscc_part(int task, DsccTeam* team, void* data) {
  const DsccLoop* loop = (const DsccLoop*)data;
  int64_t begin = loop->count * task / team->count, end = loop->count * (task + 1) / team->count;
  if (begin < end) loop->body(begin, end, loop->data);
  return 0;
}

// Calls body(begin, end, data) for parts of 0..count at once; `work` is about how many operations all of it takes.
static inline void dscc_parallel(int64_t count, double work, DsccBody body, void* data) {
  DsccLoop loop = {body, data, count};
  if (count > 1 && work > 32768 && dscc_launch != NULL)
    dscc_launch(dscc_part, &loop, 0);
  else if (count > 0)
    body(0, count, data);
}

// An element of a tensor of floats as a double, and back.
static inline double dscc_real(const DLTensor* tensor, int64_t index) {
  return tensor->dtype.bits == 64 ? ((const double*)dscc_data(tensor))[index] : ((const float*)dscc_data(tensor))[index];
}

static inline void dscc_set_real(const DLTensor* tensor, int64_t index, double value) {
  if (tensor->dtype.bits == 64)
    ((double*)dscc_data(tensor))[index] = value;
  else
    ((float*)dscc_data(tensor))[index] = (float)value;
}

#endif  // DSCC_LIBRARY_H_
