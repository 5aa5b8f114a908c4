// Nodes that dscc does not compile: another engine runs them, behind a function that whoever loaded the library sets.

#include "dscc.h"

// What runs a region, with the arguments of `dscc.fallback` without the virtual machine: a function of TVM, borrowed from
// whoever set it.
static _Atomic(TVMFFIObjectHandle) engine;

// dscc.fallback(vm, shape of one number: the region, inputs...): the outputs of the region, an array unless it is one.
DSCC_FUNCTION(fallback) {
  (void)self;
  TVMFFIObjectHandle run = engine;
  if (run == NULL) {
    return dscc_fail("ValueError", "the artifact runs some of the model's nodes on another engine ('dscc inspect' says "
                                   "which), which only dscc's Python runtime calls; load it there, or compile the "
                                   "model with --no-fallback");
  }
  return TVMFFIFunctionCall(run, (TVMFFIAny*)(args + 1), count - 1, result);
}

// dscc_set_fallback(function): it serves from now on; without an argument none does.
__attribute__((visibility("default"))) int __tvm_ffi_dscc_set_fallback(void* self, const TVMFFIAny* args, int32_t count,
                                                                       TVMFFIAny* result) {
  (void)self;
  engine = count == 1 ? args[0].v_obj : NULL;
  result->type_index = kTVMFFINone;
  result->zero_padding = 0;
  result->v_int64 = 0;
  return 0;
}
