// The server's side of TVM's RPC on a socket that is open already, as a machine without Python would run it.
//
//     serve SOCKET

#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/reflection/registry.h>

#include <string>

namespace ffi = tvm::ffi;

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  tvm::ffi::reflection::GlobalDef()
      .def("tvm.rpc.server.workpath", [](ffi::String path) { return path; })
      .def("tvm.rpc.server.load_module", [](ffi::String path) { return ffi::Module::LoadFromFile("./" + std::string(path)); });
  ffi::Function::GetGlobalRequired("rpc.ServerLoop")(std::stoi(argv[1]));
  return 0;
}
