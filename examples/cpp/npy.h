// Reads and writes arrays in NumPy's .npy format, version 1: contiguous, little-endian, of TVM's element types.
#pragma once

#include <tvm/ffi/container/tensor.h>

#include <cstdlib>
#include <fstream>
#include <new>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace npy {

// Kernels load whole vectors: memory for them starts at a multiple of 64 bytes.
struct Aligned {
  void AllocData(DLTensor* tensor) {
    size_t bytes = (tvm::ffi::GetDataSize(*tensor) + 63) / 64 * 64;
    tensor->data = std::aligned_alloc(64, bytes ? bytes : 64);
    if (!tensor->data) throw std::bad_alloc();
  }
  void FreeData(DLTensor* tensor) { std::free(tensor->data); }
};

inline tvm::ffi::Tensor Load(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  char start[10];
  if (!file.read(start, 10) || std::string(start + 1, 5) != "NUMPY" || start[6] != 1)
    throw std::runtime_error("'" + path + "' is not a .npy file of version 1");
  std::string header(static_cast<unsigned char>(start[8]) | static_cast<unsigned char>(start[9]) << 8, ' ');
  file.read(header.data(), static_cast<std::streamsize>(header.size()));
  auto after = [&](const char* key) { return header.find(key) + std::string(key).size(); };
  if (header.compare(after("'fortran_order': "), 5, "False") != 0)
    throw std::runtime_error("'" + path + "' is in column order");
  std::string type = header.substr(after("'descr': '"), 3);  // such as <f4
  DLDataType dtype{};
  dtype.code = type[1] == 'f' ? kDLFloat : type[1] == 'i' ? kDLInt : type[1] == 'u' ? kDLUInt : kDLBool;
  dtype.bits = static_cast<uint8_t>(8 * (type[2] - '0'));
  dtype.lanes = 1;
  std::stringstream dims(header.substr(after("'shape': (")));
  std::vector<int64_t> shape;
  for (int64_t dim; dims >> dim; dims.ignore(1)) shape.push_back(dim);
  auto tensor = tvm::ffi::Tensor::FromNDAlloc(Aligned(), tvm::ffi::Shape(shape), dtype, DLDevice{kDLCPU, 0});
  auto bytes = static_cast<std::streamsize>(tvm::ffi::GetDataSize(static_cast<size_t>(tensor.numel()), dtype));
  if (!file.read(static_cast<char*>(tensor.data_ptr()), bytes)) throw std::runtime_error("'" + path + "' is truncated");
  return tensor;
}

inline void Save(const std::string& path, const tvm::ffi::Tensor& tensor) {
  DLDataType dtype = tensor.dtype();
  const char kind = dtype.code == kDLFloat ? 'f' : dtype.code == kDLInt ? 'i' : dtype.code == kDLUInt ? 'u' : 'b';
  std::ostringstream text;
  text << "{'descr': '" << (dtype.bits == 8 ? '|' : '<') << kind << dtype.bits / 8 << "', 'fortran_order': False, 'shape': (";
  for (int64_t dim : tensor.shape()) text << dim << ",";
  text << "), }";
  std::string header = text.str();
  header.append((64 - (11 + header.size()) % 64) % 64, ' ').push_back('\n');
  std::ofstream file(path, std::ios::binary);
  file << "\x93NUMPY\x01" << '\0' << static_cast<char>(header.size() & 255) << static_cast<char>(header.size() >> 8) << header;
  file.write(static_cast<const char*>(tensor.data_ptr()) + tensor.byte_offset(),
             static_cast<std::streamsize>(tvm::ffi::GetDataSize(static_cast<size_t>(tensor.numel()), dtype)));
  if (!file.flush()) throw std::runtime_error("cannot write '" + path + "'");
}

}  // namespace npy
