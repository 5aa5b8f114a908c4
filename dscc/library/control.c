// Control flow: If. The branches are functions of the module, called as closures of the virtual machine.

#include "dscc.h"

// vm.builtin.invoke_closure(vm, closure, arguments...), found by whoever needs it first.
static int invoke(TVMFFIAny* args, int32_t count, TVMFFIAny* result) {
  static _Atomic(TVMFFIObjectHandle) invoke_closure;
  TVMFFIObjectHandle function = invoke_closure;
  if (function == NULL) {
    const char* name = "vm.builtin.invoke_closure";
    TVMFFIByteArray text = {name, strlen(name)};
    if (TVMFFIFunctionGetGlobal(&text, &function) != 0) return -1;
    if (function == NULL) return dscc_fail("RuntimeError", "TVM's runtime lacks vm.builtin.invoke_closure");
    invoke_closure = function;  // two threads that come at once both keep it: it lives as long as the process
  }
  return TVMFFIFunctionCall(function, args, count, result);
}

// dscc.if(vm, then, else, condition, arguments...): what the branch that the condition chooses gives for the arguments.
DSCC_FUNCTION(if) {
  (void)self;
  TVMFFIAny call[count - 2];
  call[0] = args[0];
  call[1] = dscc_integer(dscc_tensor(&args[3])) ? args[1] : args[2];
  for (int i = 4; i < count; ++i) call[i - 2] = args[i];
  return invoke(call, count - 2, result);
}
