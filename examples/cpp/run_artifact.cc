// Runs an artifact of dscc from C++, with TVM's runtime libraries and nothing else.
//
//     run_artifact model.dscc THREADS OUTPUT_PREFIX INPUT.npy...
//
// Inputs are in the model's order; outputs go to OUTPUT_PREFIX0.npy, OUTPUT_PREFIX1.npy, ...

#include <tvm/ffi/extra/json.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <iostream>
#include <vector>

#include "artifact.h"
#include "npy.h"

namespace ffi = tvm::ffi;

namespace {

constexpr int kNaive = 1;  // TVM's allocator that leaves reuse to malloc

ffi::json::Object Parse(std::string_view text) {
  return ffi::json::Parse(ffi::String(text.data(), text.size())).cast<ffi::json::Object>();
}

// The executable in the shared library. The loader takes files only, so it gets one in memory.
ffi::Module LoadLibrary(std::string_view content) {
  int fd = memfd_create("model.so", MFD_CLOEXEC);
  for (size_t at = 0; at < content.size();) {
    ssize_t done = write(fd, content.data() + at, content.size() - at);
    if (done < 0) throw std::runtime_error("cannot write the library to memory");
    at += static_cast<size_t>(done);
  }
  auto load = ffi::Function::GetGlobalRequired("ffi.Module.load_from_file.so");
  auto module = load("/proc/self/fd/" + std::to_string(fd), "").cast<ffi::Module>();
  close(fd);
  return module;
}

// A weight, where it lies in the mapped file: the tensor refers to it and frees only its own description.
struct Mapped {
  void* data;
  void AllocData(DLTensor* tensor) { tensor->data = data; }
  void FreeData(DLTensor*) {}
};

DLDataType WeightType(const std::string& code) {
  static const std::map<std::string, DLDataType> types = {
      {"F64", {kDLFloat, 64, 1}}, {"F32", {kDLFloat, 32, 1}}, {"F16", {kDLFloat, 16, 1}},  {"BF16", {kDLBfloat, 16, 1}},
      {"I64", {kDLInt, 64, 1}},   {"I32", {kDLInt, 32, 1}},   {"I16", {kDLInt, 16, 1}},    {"I8", {kDLInt, 8, 1}},
      {"U64", {kDLUInt, 64, 1}},  {"U32", {kDLUInt, 32, 1}},  {"U16", {kDLUInt, 16, 1}},   {"U8", {kDLUInt, 8, 1}},
      {"BOOL", {kDLBool, 8, 1}},
  };
  return types.at(code);
}

// The weights in the order in which the model's `main` takes them.
std::vector<ffi::Tensor> Weights(const dscc::Artifact& artifact, const ffi::json::Object& manifest) {
  std::string_view content = artifact.Member("weights.safetensors");
  uint64_t header_size;
  std::memcpy(&header_size, content.data(), sizeof header_size);
  auto header = Parse(content.substr(8, header_size));
  const char* data = content.data() + 8 + header_size;
  std::vector<ffi::Tensor> weights;
  for (const ffi::Any& name : manifest["weights"].cast<ffi::json::Array>()) {
    auto entry = header[name].cast<ffi::json::Object>();
    std::vector<int64_t> shape;
    for (const ffi::Any& dim : entry["shape"].cast<ffi::json::Array>()) shape.push_back(dim.cast<int64_t>());
    auto start = entry["data_offsets"].cast<ffi::json::Array>()[0].cast<int64_t>();
    weights.push_back(ffi::Tensor::FromNDAlloc(Mapped{const_cast<char*>(data + start)}, ffi::Shape(shape),
                                               WeightType(entry["dtype"].cast<std::string>()), DLDevice{kDLCPU, 0}));
  }
  return weights;
}

void Run(const std::string& path, int threads, const std::string& prefix, const std::vector<std::string>& inputs) {
  dscc::Artifact artifact(path);
  auto manifest = Parse(artifact.Member("manifest.json"));
  if (manifest["format"].cast<int64_t>() != 1) throw std::runtime_error("'" + path + "' has a format that is not known");
  for (const char* side : {"inputs", "outputs"}) {
    for (const ffi::Any& entry : manifest[side].cast<ffi::json::Array>()) {
      if (entry.cast<ffi::json::Object>().count("around"))
        throw std::runtime_error("'" + path + "' has a sequence or an optional among its " + side +
                                 "; this program takes tensors only");
    }
  }
  auto expected = manifest["inputs"].cast<ffi::json::Array>().size();
  if (inputs.size() != expected)
    throw std::runtime_error("expected " + std::to_string(expected) + " inputs, got " + std::to_string(inputs.size()));

  auto executable = LoadLibrary(artifact.Member("model.so"));
  if (auto set_threads = executable->GetFunction("dscc_set_threads", true)) (*set_threads)(threads);
  auto machine = executable->GetFunction("vm_load_executable").value()().cast<ffi::Module>();
  machine->GetFunction("vm_initialization").value()(static_cast<int>(kDLCPU), 0, kNaive);

  std::vector<ffi::Any> arguments;
  for (const std::string& input : inputs) arguments.emplace_back(npy::Load(input));
  for (const ffi::Tensor& weight : Weights(artifact, manifest)) arguments.emplace_back(weight);
  std::vector<ffi::AnyView> views(arguments.begin(), arguments.end());
  ffi::Any result;
  machine->GetFunction("main").value().CallPacked(views.data(), static_cast<int>(views.size()), &result);

  std::vector<ffi::Tensor> outputs;
  if (auto several = result.as<ffi::Array<ffi::Tensor>>()) {
    outputs.assign(several->begin(), several->end());
  } else {
    outputs.push_back(result.cast<ffi::Tensor>());
  }
  for (size_t i = 0; i < outputs.size(); ++i) npy::Save(prefix + std::to_string(i) + ".npy", outputs[i]);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::cerr << "usage: run_artifact model.dscc THREADS OUTPUT_PREFIX INPUT.npy...\n";
    return 2;
  }
  try {
    Run(argv[1], std::stoi(argv[2]), argv[3], std::vector<std::string>(argv + 4, argv + argc));
  } catch (const std::exception& error) {
    std::cerr << "run_artifact: error: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
