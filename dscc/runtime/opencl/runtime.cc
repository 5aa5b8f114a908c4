// TVM's device type "opencl", which its wheel has no runtime for: memory, copies and kernels of one OpenCL device.
//
// Tensors lie in coarse-grained shared virtual memory, so that their addresses are plain pointers, as the virtual machine
// wants them. All commands go through one in-order queue. `dscc.opencl.open` chooses the device; it is called before
// anything else, once a process.
//
// The formats of its code are `bin`, what the device's own compiler made of it, and `spv`, SPIR-V.

#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/reflection/registry.h>
#include <tvm/ffi/tvm_ffi.h>
#include <tvm/runtime/device_api.h>

#include <memory>
#include <mutex>
#include <vector>

#include "../kernels.h"
#include "opencl.h"

namespace {

using opencl::Code;
using opencl::Handle;
using tvm::runtime::DeviceAttrKind;
namespace ffi = tvm::ffi;

constexpr size_t kAlign = 64;

void Check(Code code, const char* what) {
  if (code == opencl::SUCCESS) return;
  bool memory = code == opencl::OBJECT_ALLOCATION_FAILURE || code == opencl::OUT_OF_RESOURCES ||
                code == opencl::OUT_OF_HOST_MEMORY;
  TVM_FFI_THROW(RuntimeError) << what << " failed with OpenCL error " << code << (memory ? ": out of memory" : "");
}

// The one device of this process.
struct Device {
  opencl::Library cl;
  Handle device, context, queue;
  std::string name, driver;
  std::mutex mutex;  // arguments are set on kernels that callers share

  std::string Text(uint32_t what) {
    size_t size = 0;
    Check(cl.clGetDeviceInfo(device, what, 0, nullptr, &size), "clGetDeviceInfo");
    std::string text(size, 0);
    Check(cl.clGetDeviceInfo(device, what, size, &text[0], nullptr), "clGetDeviceInfo");
    return text.c_str();
  }

  template <class T>
  int64_t Number(uint32_t what) {
    T value{};
    Check(cl.clGetDeviceInfo(device, what, sizeof value, &value, nullptr), "clGetDeviceInfo");
    return static_cast<int64_t>(value);
  }

  // The first device of this type with `wanted` in its name.
  Device(const std::string& library, const std::string& wanted, uint64_t type) : cl(library), device(nullptr) {
    uint32_t count = 0;
    cl.clGetPlatformIDs(0, nullptr, &count);
    std::vector<Handle> platforms(count);
    if (count) Check(cl.clGetPlatformIDs(count, platforms.data(), nullptr), "clGetPlatformIDs");
    std::string seen;
    for (Handle platform : platforms) {
      uint32_t found = 0;
      if (cl.clGetDeviceIDs(platform, type, 0, nullptr, &found) != opencl::SUCCESS) continue;
      std::vector<Handle> devices(found);
      Check(cl.clGetDeviceIDs(platform, type, found, devices.data(), nullptr), "clGetDeviceIDs");
      for (Handle each : devices) {
        device = each;
        name = Text(opencl::DEVICE_NAME);
        uint64_t memory = 0;
        cl.clGetDeviceInfo(each, opencl::DEVICE_SVM_CAPABILITIES, sizeof memory, &memory, nullptr);
        bool shared = memory & opencl::COARSE_GRAIN_SVM;
        if (shared && name.find(wanted) != std::string::npos) {
          Open();
          return;
        }
        seen += (seen.empty() ? "'" : ", '") + name + (shared ? "'" : "' (without shared virtual memory)");
      }
    }
    TVM_FFI_THROW(ValueError) << (seen.empty() ? std::string("there is no OpenCL ") + (type == opencl::GPU ? "GPU" : "device")
                                               : "no OpenCL device is called '" + wanted + "'; there are: " + seen);
  }

  void Open() {
    Code code;
    driver = Text(opencl::DRIVER_VERSION);
    context = cl.clCreateContext(nullptr, 1, &device, nullptr, nullptr, &code);
    Check(code, "clCreateContext");
    queue = cl.clCreateCommandQueueWithProperties(context, device, nullptr, &code);
    Check(code, "clCreateCommandQueueWithProperties");
  }
};

Device* opened = nullptr;  // lives as long as the process: kernels may end after static objects

Device& Current() {
  if (opened == nullptr) TVM_FFI_THROW(RuntimeError) << "no OpenCL device is open";
  return *opened;
}

class OpenCL final : public tvm::runtime::DeviceAPI {
 public:
  void SetDevice(tvm::Device) final {}

  void GetAttr(tvm::Device device, DeviceAttrKind kind, ffi::Any* result) final {
    namespace attr = tvm::runtime;
    if (kind == attr::kExist) *result = static_cast<int64_t>(opened != nullptr && device.device_id == 0);
    if (opened == nullptr) return;
    switch (kind) {
      case attr::kMaxThreadsPerBlock: *result = Current().Number<size_t>(opencl::DEVICE_MAX_WORK_GROUP_SIZE); break;
      case attr::kMaxSharedMemoryPerBlock: *result = Current().Number<uint64_t>(opencl::DEVICE_LOCAL_MEM_SIZE); break;
      case attr::kMultiProcessorCount: *result = Current().Number<uint32_t>(opencl::DEVICE_MAX_COMPUTE_UNITS); break;
      case attr::kTotalGlobalMemory: *result = Current().Number<uint64_t>(opencl::DEVICE_GLOBAL_MEM_SIZE); break;
      case attr::kDeviceName: *result = ffi::String(Current().name); break;
      case attr::kDriverVersion: *result = ffi::String(Current().driver); break;
      case attr::kApiVersion: *result = ffi::String(Current().Text(opencl::DEVICE_VERSION)); break;
      default: break;
    }
  }

  void* AllocDataSpace(tvm::Device, size_t bytes, size_t align, DLDataType) final {
    Device& d = Current();
    void* data = d.cl.clSVMAlloc(d.context, opencl::READ_WRITE, bytes ? bytes : 1, align < kAlign ? kAlign : align);
    if (data == nullptr) TVM_FFI_THROW(RuntimeError) << "out of memory: " << d.name << " has no " << bytes << " bytes";
    return data;
  }

  void FreeDataSpace(tvm::Device, void* data) final {
    Device& d = Current();
    d.cl.clFinish(d.queue);  // kernels in the queue may still use it
    d.cl.clSVMFree(d.context, data);
  }

  void StreamSync(tvm::Device, TVMStreamHandle) final { Check(Current().cl.clFinish(Current().queue), "clFinish"); }

  bool SupportsDevicePointerArithmeticsOnHost() final { return true; }

 protected:
  void CopyDataFromTo(const void* from, size_t from_offset, void* to, size_t to_offset, size_t bytes, tvm::Device,
                      tvm::Device, DLDataType, TVMStreamHandle) final {
    Device& d = Current();
    if (bytes == 0) return;
    Check(d.cl.clEnqueueSVMMemcpy(d.queue, 1, static_cast<char*>(to) + to_offset,
                                  static_cast<const char*>(from) + from_offset, bytes, 0, nullptr, nullptr),
          "clEnqueueSVMMemcpy");
  }
};

class Kernels final : public ffi::ModuleObj {
 public:
  explicit Kernels(const ffi::Bytes& bytes)
      : bytes_(bytes.data(), bytes.size()), read_(bytes_.data(), bytes_.size()) {}

  const char* kind() const final { return "opencl"; }
  int GetPropertyMask() const final { return ffi::Module::kBinarySerializable | ffi::Module::kRunnable; }
  ffi::Bytes SaveToBytes() const final { return ffi::Bytes(bytes_); }

  ffi::Optional<ffi::Function> GetFunction(const ffi::String& name) final {
    auto found = read_.signatures.find(std::string(name));
    if (found == read_.signatures.end()) return std::nullopt;
    Device& d = Current();
    Code code;
    Handle kernel;
    {
      std::lock_guard<std::mutex> lock(d.mutex);
      Build();
      kernel = d.cl.clCreateKernel(program_, found->first.c_str(), &code);
    }
    Check(code, "clCreateKernel");
    std::shared_ptr<opencl::Opaque> owned(kernel, [](Handle handle) { Current().cl.clReleaseKernel(handle); });
    auto self = ffi::GetObjectPtr<ffi::ModuleObj>(this);
    return ffi::Function::FromPacked([self, owned, signature = found->second](const ffi::AnyView* args, int32_t count,
                                                                              ffi::Any*) {
      Launch(owned.get(), signature, reinterpret_cast<const TVMFFIAny*>(args), count);
    });
  }

  ~Kernels() {
    if (program_ != nullptr) Current().cl.clReleaseProgram(program_);
  }

 private:
  static void Launch(Handle kernel, const dscc::Signature& signature, const TVMFFIAny* args, int32_t count) {
    Device& d = Current();
    size_t extents[6];
    if (!signature.Extents(args, count, extents)) return;
    size_t threads[3];
    for (int i = 0; i < 3; ++i) threads[i] = extents[i] * extents[3 + i];
    std::lock_guard<std::mutex> lock(d.mutex);
    for (size_t i = 0; i < signature.arguments.size(); ++i) {
      DLDataType type = signature.arguments[i];
      uint32_t at = static_cast<uint32_t>(i);
      if (type.code == kDLOpaqueHandle) {
        Check(d.cl.clSetKernelArgSVMPointer(kernel, at, args[i].v_ptr), "clSetKernelArgSVMPointer");
      } else if (type.code == kDLFloat && type.bits == 32) {
        float value = static_cast<float>(args[i].v_float64);
        Check(d.cl.clSetKernelArg(kernel, at, sizeof value, &value), "clSetKernelArg");
      } else {  // integers are little-endian: a shorter one is the start of a longer one
        Check(d.cl.clSetKernelArg(kernel, at, type.bits < 8 ? 1 : type.bits / 8, &args[i].v_int64), "clSetKernelArg");
      }
    }
    Check(d.cl.clEnqueueNDRangeKernel(d.queue, kernel, 3, nullptr, threads, extents + 3, 0, nullptr, nullptr),
          "clEnqueueNDRangeKernel");
  }

  void Build() {
    if (program_ != nullptr) return;
    Device& d = Current();
    Code code;
    size_t size = read_.code.size();
    if (read_.format == "bin") {
      Code status;
      const auto* data = reinterpret_cast<const unsigned char*>(read_.code.data());
      program_ = d.cl.clCreateProgramWithBinary(d.context, 1, &d.device, &size, &data, &status, &code);
    } else if (read_.format == "spv") {
      program_ = d.cl.clCreateProgramWithIL(d.context, read_.code.data(), size, &code);
    } else {
      TVM_FFI_THROW(RuntimeError) << "there is no OpenCL code of format '" << read_.format << "'";
    }
    if (code == opencl::SUCCESS) code = d.cl.clBuildProgram(program_, 1, &d.device, "", nullptr, nullptr);
    if (code == opencl::SUCCESS) return;
    std::string log;
    if (program_ != nullptr) {
      size_t length = 0;
      d.cl.clGetProgramBuildInfo(program_, d.device, opencl::PROGRAM_BUILD_LOG, 0, nullptr, &length);
      log.resize(length);
      d.cl.clGetProgramBuildInfo(program_, d.device, opencl::PROGRAM_BUILD_LOG, length, &log[0], nullptr);
      d.cl.clReleaseProgram(program_);
      program_ = nullptr;
    }
    TVM_FFI_THROW(RuntimeError) << d.name << " (driver " << d.driver << ") does not take the kernels, OpenCL error "
                                << code << ": " << log.c_str();
  }

  std::string bytes_;
  dscc::DeviceCode read_;
  Handle program_ = nullptr;
};

// dscc.opencl.open(library, name, type): name and driver, a line each, of the device that is used from here on.
ffi::String Open(const ffi::String& library, const ffi::String& name, int64_t type) {
  if (opened == nullptr) {
    try {
      opened = new Device(std::string(library), std::string(name), static_cast<uint64_t>(type));
    } catch (const std::runtime_error& err) {
      TVM_FFI_THROW(ValueError) << err.what();
    }
  } else if (opened->name.find(std::string(name)) == std::string::npos) {
    TVM_FFI_THROW(ValueError) << "this process already uses the OpenCL device '" << opened->name << "'";
  }
  return ffi::String(opened->name + "\n" + opened->driver);
}

}  // namespace

TVM_FFI_STATIC_INIT_BLOCK() {
  tvm::ffi::reflection::GlobalDef()
      .def_packed("device_api.opencl",
                  [](ffi::PackedArgs, ffi::Any* result) {
                    static OpenCL* api = new OpenCL();
                    *result = static_cast<void*>(static_cast<tvm::runtime::DeviceAPI*>(api));
                  })
      .def("dscc.opencl.open", Open)
      .def("ffi.Module.load_from_bytes.opencl",
           [](const ffi::Bytes& bytes) { return ffi::Module(ffi::make_object<Kernels>(bytes)); });
}
