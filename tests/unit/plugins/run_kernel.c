// Calls one kernel of a model's library, where there is no TVM for the processor: its calling convention is C.
//
//     run_kernel model.so KERNEL THREADS ARGUMENT...      an argument is TYPE:BITS:DIM,DIM,...:FILE, the last one is written
//
// TYPE is i, u or f. Kernels are given what they need of TVM's runtime: memory to work in, and a place for errors.

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tvm/ffi/c_api.h>

static void* required(void* value, const char* what) {
  if (value) return value;
  fprintf(stderr, "run_kernel: %s\n", what);
  exit(1);
}

// What the library refers to by name.
void TVMFFIErrorSetRaisedFromCStrParts(const char* kind, const char** parts, int32_t count) {
  fprintf(stderr, "%s: ", kind);
  for (int32_t i = 0; i < count; ++i) fprintf(stderr, "%s", parts[i] ? parts[i] : "");
  fprintf(stderr, "\n");
}
void TVMFFIErrorMoveFromRaised(TVMFFIObjectHandle* error) { *error = NULL; }
void TVMFFIErrorSetRaised(TVMFFIObjectHandle error) { (void)error; }
int TVMFFIObjectDecRef(TVMFFIObjectHandle object) { return object != NULL; }
void TVMFFIErrorSetRaisedFromCStr(const char* kind, const char* message) { fprintf(stderr, "%s: %s\n", kind, message); }
int TVMFFITensorFromDLPack(DLManagedTensor* from, int32_t alignment, int32_t contiguous, TVMFFIObjectHandle* out) {
  return (void)from, (void)alignment, (void)contiguous, (void)out, -1;  // of the model's main function, not of a kernel
}
int TVMFFITensorCreateUnsafeView(TVMFFIObjectHandle source, const DLTensor* prototype, TVMFFIObjectHandle* out) {
  return (void)source, (void)prototype, (void)out, -1;
}

// What it calls through pointers that the runtime sets when it loads a library.
static void* allocate(int device, int id, uint64_t bytes, int code, int bits) {
  (void)device, (void)id, (void)code, (void)bits;
  return aligned_alloc(64, (bytes + 63) / 64 * 64);
}
static int release(int device, int id, void* memory) {
  (void)device, (void)id;
  free(memory);
  return 0;
}
static void set(void* library, const char* name, void* value) {
  void** place = (void**)dlsym(library, name);
  if (place) *place = value;
}

static DLTensor* argument(const char* text, char** path) {
  DLTensor* tensor = (DLTensor*)required(calloc(1, sizeof(DLTensor)), "no memory");
  char* rest = strdup(text);
  const char* type = strtok(rest, ":");
  tensor->dtype = (DLDataType){type[0] == 'f' ? kDLFloat : type[0] == 'u' ? kDLUInt : kDLInt, (uint8_t)atoi(strtok(NULL, ":")), 1};
  char* dims = strtok(NULL, ":");
  *path = strtok(NULL, ":");
  tensor->device.device_type = kDLCPU;
  tensor->shape = (int64_t*)required(calloc(8, sizeof(int64_t)), "no memory");
  tensor->strides = (int64_t*)required(calloc(8, sizeof(int64_t)), "no memory");
  for (char* dim = strtok(dims, ","); dim; dim = strtok(NULL, ",")) tensor->shape[tensor->ndim++] = atoll(dim);
  size_t bytes = tensor->dtype.bits / 8;
  for (int axis = tensor->ndim - 1; axis >= 0; --axis) {
    tensor->strides[axis] = (int64_t)(bytes / (tensor->dtype.bits / 8));
    bytes *= (size_t)tensor->shape[axis];
  }
  tensor->data = required(aligned_alloc(64, (bytes + 63) / 64 * 64), "no memory");
  FILE* file = fopen(*path, "rb");
  if (file) {
    if (fread(tensor->data, 1, bytes, file) != bytes) required(NULL, "a file is too short");
    fclose(file);
  }
  return tensor;
}

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  void* library = dlopen(argv[1], RTLD_NOW);
  if (!library) required(NULL, dlerror());
  set(library, "__TVMBackendAllocWorkspace", (void*)allocate);
  set(library, "__TVMBackendFreeWorkspace", (void*)release);
  TVMFFISafeCallType threads = (TVMFFISafeCallType)required(dlsym(library, "__tvm_ffi_dscc_set_threads"), "no threads");
  TVMFFIAny wanted = {.type_index = kTVMFFIInt, .v_int64 = atoi(argv[3])}, result = {0};
  if (threads(NULL, &wanted, 1, &result) != 0) return 1;
  char name[512];
  snprintf(name, sizeof name, "__tvm_ffi_%s", argv[2]);
  TVMFFISafeCallType kernel = (TVMFFISafeCallType)required(dlsym(library, name), "no such kernel");
  int count = argc - 4;
  TVMFFIAny* arguments = (TVMFFIAny*)required(calloc((size_t)count, sizeof(TVMFFIAny)), "no memory");
  char* path = NULL;
  DLTensor* tensor = NULL;
  for (int i = 0; i < count; ++i) {
    tensor = argument(argv[4 + i], &path);
    arguments[i].type_index = kTVMFFIDLTensorPtr;
    arguments[i].v_ptr = tensor;
  }
  if (kernel(NULL, arguments, count, &result) != 0) return 1;
  size_t bytes = tensor->dtype.bits / 8;
  for (int axis = 0; axis < tensor->ndim; ++axis) bytes *= (size_t)tensor->shape[axis];
  FILE* file = (FILE*)required(fopen(path, "wb"), "the output cannot be written");
  if (fwrite(tensor->data, 1, bytes, file) != bytes) required(NULL, "the output cannot be written");
  return fclose(file);
}
