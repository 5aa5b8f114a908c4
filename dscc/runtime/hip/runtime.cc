// TVM's device type "rocm", which its wheel has no runtime for: memory, copies and kernels of one device, through HIP.
//
// All commands go through HIP's null stream. `dscc.hip.open` chooses the device; it is called before anything else, once
// a process. The one format of its code is `hsaco`, a code object for AMD's HSA.

#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/reflection/registry.h>
#include <tvm/ffi/tvm_ffi.h>
#include <tvm/runtime/device_api.h>

#include <cstring>
#include <mutex>
#include <vector>

#include "../kernels.h"
#include "hip.h"

namespace {

using hip::Handle;
using tvm::runtime::DeviceAttrKind;
namespace ffi = tvm::ffi;

// The one device of this process.
struct Device {
  hip::Library api;
  int number;
  std::string name, arch;

  void Check(hip::Code code, const char* what) const {
    if (code == hip::SUCCESS) return;
    TVM_FFI_THROW(RuntimeError) << what << " failed with HIP error " << code << ": " << api.hipGetErrorString(code);
  }

  // The first device with `wanted` in its name.
  Device(const std::string& library, const std::string& wanted) : api(library), number(0) {
    int count = 0;
    if (api.hipInit(0) != hip::SUCCESS || api.hipGetDeviceCount(&count) != hip::SUCCESS) count = 0;
    std::string seen;
    for (; number < count; ++number) {
      char text[256] = "";
      Check(api.hipDeviceGetName(text, sizeof text, number), "hipDeviceGetName");
      name = text;
      if (name.find(wanted) != std::string::npos) {
        arch = Architecture();
        Use();
        return;
      }
      seen += (seen.empty() ? "'" : ", '") + name + "'";
    }
    TVM_FFI_THROW(ValueError) << (seen.empty() ? std::string("AMD's HIP runtime finds no device")
                                               : "no device is called '" + wanted + "'; there are: " + seen);
  }

  // A thread's choice of the device is its own.
  void Use() const { Check(api.hipSetDevice(number), "hipSetDevice"); }

  std::string Text() const { return name + "\n" + arch; }

 private:
  // hipDeviceProp_t differs between versions of HIP, and the architecture lies elsewhere in each. It is the one text in
  // it that starts with gfx, as in `gfx90a:sramecc+:xnack-`.
  std::string Architecture() const {
    std::vector<char> properties(1 << 16);
    Check(api.hipGetDeviceProperties(properties.data(), number), "hipGetDeviceProperties");
    for (size_t i = 0; i + 4 < properties.size(); ++i) {
      const char* at = &properties[i];
      if (memcmp(at, "gfx", 3) != 0) continue;
      size_t size = 3;
      while (isalnum(static_cast<unsigned char>(at[size]))) ++size;
      if (size > 3) return std::string(at, size);
    }
    return "";
  }
};

Device* opened = nullptr;  // lives as long as the process: kernels may end after static objects

Device& Current() {
  if (opened == nullptr) TVM_FFI_THROW(RuntimeError) << "no HIP device is open";
  return *opened;
}

class Rocm final : public tvm::runtime::DeviceAPI {
 public:
  void SetDevice(tvm::Device) final { Current().Use(); }

  void GetAttr(tvm::Device device, DeviceAttrKind kind, ffi::Any* result) final {
    namespace attr = tvm::runtime;
    if (kind == attr::kExist) *result = static_cast<int64_t>(opened != nullptr && device.device_id == 0);
    if (opened == nullptr) return;
    size_t free = 0, total = 0;
    switch (kind) {
      case attr::kDeviceName: *result = ffi::String(Current().name); break;
      case attr::kGcnArch: *result = ffi::String(Current().arch); break;
      case attr::kTotalGlobalMemory:
        Current().Check(Current().api.hipMemGetInfo(&free, &total), "hipMemGetInfo");
        *result = static_cast<int64_t>(total);
        break;
      default: break;
    }
  }

  void* AllocDataSpace(tvm::Device, size_t bytes, size_t, DLDataType) final {
    Device& d = Current();
    void* data = nullptr;
    d.Use();
    hip::Code code = d.api.hipMalloc(&data, bytes ? bytes : 1);  // aligned to 256 bytes
    if (code == hip::OUT_OF_MEMORY) {
      TVM_FFI_THROW(RuntimeError) << "out of memory: " << d.name << " has no " << bytes << " bytes";
    }
    d.Check(code, "hipMalloc");
    return data;
  }

  void FreeDataSpace(tvm::Device, void* data) final { Current().Check(Current().api.hipFree(data), "hipFree"); }

  void StreamSync(tvm::Device, TVMStreamHandle) final {
    Current().Check(Current().api.hipStreamSynchronize(nullptr), "hipStreamSynchronize");
  }

  bool SupportsDevicePointerArithmeticsOnHost() final { return true; }

 protected:
  void CopyDataFromTo(const void* from, size_t from_offset, void* to, size_t to_offset, size_t bytes, tvm::Device,
                      tvm::Device, DLDataType, TVMStreamHandle) final {
    Device& d = Current();
    if (bytes == 0) return;
    d.Use();
    d.Check(d.api.hipMemcpyAsync(static_cast<char*>(to) + to_offset, static_cast<const char*>(from) + from_offset, bytes,
                                 hip::COPY_DEFAULT, nullptr),
            "hipMemcpyAsync");
    d.Check(d.api.hipStreamSynchronize(nullptr), "hipStreamSynchronize");
  }
};

class Kernels final : public ffi::ModuleObj {
 public:
  explicit Kernels(const ffi::Bytes& bytes)
      : bytes_(bytes.data(), bytes.size()), read_(bytes_.data(), bytes_.size()) {}

  const char* kind() const final { return "rocm"; }
  int GetPropertyMask() const final { return ffi::Module::kBinarySerializable | ffi::Module::kRunnable; }
  ffi::Bytes SaveToBytes() const final { return ffi::Bytes(bytes_); }

  ffi::Optional<ffi::Function> GetFunction(const ffi::String& name) final {
    auto found = read_.signatures.find(std::string(name));
    if (found == read_.signatures.end()) return std::nullopt;
    Device& d = Current();
    Handle function = nullptr;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      d.Use();
      if (module_ == nullptr) d.Check(d.api.hipModuleLoadData(&module_, read_.code.data()), "hipModuleLoadData");
      d.Check(d.api.hipModuleGetFunction(&function, module_, found->first.c_str()), "hipModuleGetFunction");
    }
    auto self = ffi::GetObjectPtr<ffi::ModuleObj>(this);
    return ffi::Function::FromPacked(
        [self, function, signature = found->second](const ffi::AnyView* args, int32_t count, ffi::Any*) {
          Launch(function, signature, reinterpret_cast<const TVMFFIAny*>(args), count);
        });
  }

  ~Kernels() {
    if (module_ != nullptr) Current().api.hipModuleUnload(module_);
  }

 private:
  static void Launch(Handle function, const dscc::Signature& signature, const TVMFFIAny* args, int32_t count) {
    Device& d = Current();
    size_t extents[6];
    if (!signature.Extents(args, count, extents)) return;
    std::vector<float> floats(signature.arguments.size());
    std::vector<void*> values(signature.arguments.size());
    for (size_t i = 0; i < values.size(); ++i) {
      DLDataType type = signature.arguments[i];
      values[i] = const_cast<int64_t*>(&args[i].v_int64);  // integers are little-endian; addresses and doubles as they are
      if (type.code == kDLFloat && type.bits == 32) {
        floats[i] = static_cast<float>(args[i].v_float64);
        values[i] = &floats[i];
      }
    }
    unsigned n[6];
    for (int i = 0; i < 6; ++i) n[i] = static_cast<unsigned>(extents[i]);
    d.Use();
    d.Check(d.api.hipModuleLaunchKernel(function, n[0], n[1], n[2], n[3], n[4], n[5], 0, nullptr, values.data(), nullptr),
            "hipModuleLaunchKernel");
  }

  std::string bytes_;
  dscc::DeviceCode read_;
  std::mutex mutex_;
  Handle module_ = nullptr;
};

// dscc.hip.open(library, name): name and architecture, a line each, of the device that is used from here on.
ffi::String Open(const ffi::String& library, const ffi::String& name) {
  if (opened == nullptr) {
    try {
      opened = new Device(std::string(library), std::string(name));
    } catch (const std::runtime_error& err) {
      TVM_FFI_THROW(ValueError) << err.what();
    }
  } else if (opened->name.find(std::string(name)) == std::string::npos) {
    TVM_FFI_THROW(ValueError) << "this process already uses the device '" << opened->name << "'";
  }
  return ffi::String(opened->Text());
}

}  // namespace

TVM_FFI_STATIC_INIT_BLOCK() {
  tvm::ffi::reflection::GlobalDef()
      .def_packed("device_api.rocm",
                  [](ffi::PackedArgs, ffi::Any* result) {
                    static Rocm* api = new Rocm();
                    *result = static_cast<void*>(static_cast<tvm::runtime::DeviceAPI*>(api));
                  })
      .def("dscc.hip.open", Open)
      .def("ffi.Module.load_from_bytes.rocm",
           [](const ffi::Bytes& bytes) { return ffi::Module(ffi::make_object<Kernels>(bytes)); });
}
