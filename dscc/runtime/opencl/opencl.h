// As much of OpenCL 3 (KhronosGroup/OpenCL-Headers, CL/cl.h) as running kernels takes, found in a library that is opened
// when it is asked for: neither headers nor a loader of OpenCL need be installed to build or to load this.

#ifndef DSCC_OPENCL_H_
#define DSCC_OPENCL_H_

#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace opencl {

using Handle = struct Opaque*;  // of platforms, devices, contexts, queues, programs, kernels and events
using Code = int32_t;

enum : uint32_t {
  PLATFORM_NAME = 0x0902,
  DEVICE_MAX_COMPUTE_UNITS = 0x1002,
  DEVICE_MAX_WORK_GROUP_SIZE = 0x1004,
  DEVICE_GLOBAL_MEM_SIZE = 0x101F,
  DEVICE_LOCAL_MEM_SIZE = 0x1023,
  DEVICE_NAME = 0x102B,
  DRIVER_VERSION = 0x102D,
  DEVICE_VERSION = 0x102F,
  DEVICE_SVM_CAPABILITIES = 0x1053,
  PROGRAM_BUILD_LOG = 0x1183,
};
enum : uint64_t { GPU = 4, COARSE_GRAIN_SVM = 1, READ_WRITE = 1 };
enum : Code { SUCCESS = 0, OBJECT_ALLOCATION_FAILURE = -4, OUT_OF_RESOURCES = -5, OUT_OF_HOST_MEMORY = -6 };

// The functions, by the names of the standard.
#define DSCC_OPENCL_FUNCTIONS(X)                                                                               \
  X(clGetPlatformIDs, Code, (uint32_t, Handle*, uint32_t*))                                                    \
  X(clGetPlatformInfo, Code, (Handle, uint32_t, size_t, void*, size_t*))                                       \
  X(clGetDeviceIDs, Code, (Handle, uint64_t, uint32_t, Handle*, uint32_t*))                                    \
  X(clGetDeviceInfo, Code, (Handle, uint32_t, size_t, void*, size_t*))                                         \
  X(clCreateContext, Handle, (const intptr_t*, uint32_t, const Handle*, void*, void*, Code*))                  \
  X(clCreateCommandQueueWithProperties, Handle, (Handle, Handle, const uint64_t*, Code*))                      \
  X(clCreateProgramWithSource, Handle, (Handle, uint32_t, const char**, const size_t*, Code*))                 \
  X(clCreateProgramWithBinary, Handle,                                                                         \
    (Handle, uint32_t, const Handle*, const size_t*, const unsigned char**, Code*, Code*))                     \
  X(clCreateProgramWithIL, Handle, (Handle, const void*, size_t, Code*))                                       \
  X(clBuildProgram, Code, (Handle, uint32_t, const Handle*, const char*, void*, void*))                        \
  X(clGetProgramBuildInfo, Code, (Handle, Handle, uint32_t, size_t, void*, size_t*))                           \
  X(clReleaseProgram, Code, (Handle))                                                                          \
  X(clCreateKernel, Handle, (Handle, const char*, Code*))                                                      \
  X(clReleaseKernel, Code, (Handle))                                                                           \
  X(clSetKernelArg, Code, (Handle, uint32_t, size_t, const void*))                                             \
  X(clSetKernelArgSVMPointer, Code, (Handle, uint32_t, const void*))                                           \
  X(clEnqueueNDRangeKernel, Code,                                                                              \
    (Handle, Handle, uint32_t, const size_t*, const size_t*, const size_t*, uint32_t, const Handle*, Handle*)) \
  X(clEnqueueSVMMemcpy, Code, (Handle, uint32_t, void*, const void*, size_t, uint32_t, const Handle*, Handle*)) \
  X(clSVMAlloc, void*, (Handle, uint64_t, size_t, uint32_t))                                                   \
  X(clSVMFree, void, (Handle, void*))                                                                          \
  X(clFlush, Code, (Handle))                                                                                   \
  X(clFinish, Code, (Handle))

struct Library {
#define X(NAME, RESULT, ARGUMENTS) RESULT(*NAME) ARGUMENTS;
  DSCC_OPENCL_FUNCTIONS(X)
#undef X

  explicit Library(const std::string& path) {
    void* opened = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (opened == nullptr) throw std::runtime_error(dlerror());
#define X(NAME, RESULT, ARGUMENTS)                                     \
  NAME = reinterpret_cast<RESULT(*) ARGUMENTS>(dlsym(opened, #NAME)); \
  if (NAME == nullptr) throw std::runtime_error(path + " has no " #NAME);
    DSCC_OPENCL_FUNCTIONS(X)
#undef X
  }
};

}  // namespace opencl

#endif  // DSCC_OPENCL_H_
