// Device code as dscc/device_code.py writes it into an artifact: a format, the kernels' signatures, and the code. What a
// runtime for a device that TVM's wheel lacks reads, whichever device it is.

#ifndef DSCC_KERNELS_H_
#define DSCC_KERNELS_H_

#include <tvm/ffi/tvm_ffi.h>

#include <cstring>
#include <string>
#include <unordered_map>
#include <vector>

namespace dscc {

// Numbers in 8 bytes, texts with their length before them.
class Reader {
 public:
  Reader(const char* data, size_t size) : at_(data), end_(data + size) {}

  template <class T>
  T Get() {
    T value;
    memcpy(&value, Take(sizeof value), sizeof value);
    return value;
  }

  std::string Text() {
    size_t size = Get<uint64_t>();
    return std::string(Take(size), size);
  }

 private:
  const char* Take(size_t size) {
    if (size > static_cast<size_t>(end_ - at_)) TVM_FFI_THROW(RuntimeError) << "the device code is cut off";
    const char* taken = at_;
    at_ += size;
    return taken;
  }

  const char *at_, *end_;
};

// What a kernel is called with: arguments, and behind them how many groups and threads there are.
struct Signature {
  std::vector<DLDataType> arguments;
  std::vector<int> extents;  // what the numbers behind the arguments are: groups in x, y, z, then threads in x, y, z

  // The six extents of a call, 1 where it gives none; false if nothing is to be done, as for a tensor without elements.
  bool Extents(const TVMFFIAny* args, int32_t count, size_t (&found)[6]) const {
    if (static_cast<size_t>(count) != arguments.size() + extents.size()) {
      TVM_FFI_THROW(RuntimeError) << "a kernel got " << count << " arguments";
    }
    for (size_t& each : found) each = 1;
    for (size_t i = 0; i < extents.size(); ++i) {
      found[extents[i]] = static_cast<size_t>(args[arguments.size() + i].v_int64);
    }
    for (size_t each : found) {
      if (each == 0) return false;
    }
    return true;
  }
};

struct DeviceCode {
  std::string format, code;
  std::unordered_map<std::string, Signature> signatures;

  DeviceCode(const char* data, size_t size) {
    Reader reader(data, size);
    format = reader.Text();
    auto count = reader.Get<uint64_t>();
    for (uint64_t i = 0; i < count; ++i) {
      std::string key = reader.Text();
      Signature signature;
      reader.Text();  // the name once more
      signature.arguments.resize(reader.Get<uint64_t>());
      for (auto& type : signature.arguments) type = reader.Get<DLDataType>();
      auto tags = reader.Get<uint64_t>();
      for (uint64_t j = 0; j < tags; ++j) signature.extents.push_back(Extent(reader.Text()));
      auto extra = reader.Get<uint64_t>();
      for (uint64_t j = 0; j < extra; ++j) reader.Get<int32_t>();
      signatures[key] = signature;
    }
    code = reader.Text();
  }

 private:
  static int Extent(const std::string& tag) {
    int axis = tag.empty() ? 3 : tag.back() - 'x';
    if (axis >= 0 && axis < 3) {
      if (tag.rfind("blockIdx.", 0) == 0) return axis;
      if (tag.rfind("threadIdx.", 0) == 0) return 3 + axis;
    }
    TVM_FFI_THROW(RuntimeError) << "kernels have no " << tag;
  }
};

}  // namespace dscc

#endif  // DSCC_KERNELS_H_
