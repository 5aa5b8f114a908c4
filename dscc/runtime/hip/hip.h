// As much of HIP (ROCm/HIP, hip_runtime_api.h) as running kernels takes, found in a library that is opened when it is
// asked for: nothing of ROCm need be installed to build or to load this.

#ifndef DSCC_HIP_H_
#define DSCC_HIP_H_

#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace hip {

using Handle = struct Opaque*;  // of modules, functions and streams
using Code = int;

enum : Code { SUCCESS = 0, OUT_OF_MEMORY = 2 };
enum : int { COPY_DEFAULT = 4 };  // hipMemcpyDefault: from and to wherever the addresses are

#define DSCC_HIP_FUNCTIONS(X)                                                                                   \
  X(hipInit, (unsigned))                                                                                        \
  X(hipGetDeviceCount, (int*))                                                                                  \
  X(hipSetDevice, (int))                                                                                        \
  X(hipDeviceGetName, (char*, int, int))                                                                        \
  X(hipGetDeviceProperties, (void*, int))                                                                       \
  X(hipMemGetInfo, (size_t*, size_t*))                                                                          \
  X(hipMalloc, (void**, size_t))                                                                                \
  X(hipFree, (void*))                                                                                           \
  X(hipMemcpyAsync, (void*, const void*, size_t, int, Handle))                                                  \
  X(hipStreamSynchronize, (Handle))                                                                             \
  X(hipModuleLoadData, (Handle*, const void*))                                                                  \
  X(hipModuleUnload, (Handle))                                                                                  \
  X(hipModuleGetFunction, (Handle*, Handle, const char*))                                                       \
  X(hipModuleLaunchKernel, (Handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Handle, \
                            void**, void**))

struct Library {
#define X(NAME, ARGUMENTS) Code(*NAME) ARGUMENTS;
  DSCC_HIP_FUNCTIONS(X)
#undef X
  const char* (*hipGetErrorString)(Code);

  explicit Library(const std::string& path) {
    void* opened = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (opened == nullptr) throw std::runtime_error(dlerror());
#define X(NAME, ARGUMENTS) Find(opened, path, #NAME, &NAME);
    DSCC_HIP_FUNCTIONS(X)
#undef X
    Find(opened, path, "hipGetErrorString", &hipGetErrorString);
  }

 private:
  template <class F>
  static void Find(void* opened, const std::string& path, const char* name, F* function) {
    *function = reinterpret_cast<F>(dlsym(opened, name));
    if (*function == nullptr) throw std::runtime_error(path + " has no " + name);
  }
};

}  // namespace hip

#endif  // DSCC_HIP_H_
