// Control flow: If, Loop and Scan. Branches and bodies are functions of the module, which the virtual machine calls.

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

static int is_unique(const TVMFFIAny* value) { return (uint32_t)value->v_obj->combined_ref_count == 1; }

// dscc.if(vm, then, else, condition, arguments...): what the branch that the condition chooses gives for the arguments.
DSCC_FUNCTION(if) {
  (void)self;
  TVMFFIAny call[count - 2];
  call[0] = args[0];
  call[1] = dscc_integer(dscc_tensor(&args[3])) ? args[1] : args[2];
  for (int i = 4; i < count; ++i) call[i - 2] = args[i];
  return invoke(call, count - 2, result);
}

// The tensors that a loop stacks, one for each iteration, in one growing buffer.
typedef struct {
  DLDataType dtype;
  int backwards;        // the first tensor comes last
  int ndim;             // of one tensor
  const int64_t* shape; // of one tensor, as it is before there is one; 0 for what is not known then
  int64_t* found;       // the shape of the first one
  char* data;
  size_t item_bytes;
  int64_t count, capacity;
} Stack;

static int push(Stack* stack, const TVMFFIAny* value, int64_t expected) {
  const DLTensor* item = dscc_tensor(value);
  if (stack->count == 0) {
    stack->item_bytes = dscc_bytes(item);
    memcpy(stack->found, item->shape, sizeof(int64_t) * (size_t)stack->ndim);
    // As many as there will be, if that is known and no more than 64 MB at once; it is a promise that may be broken.
    int64_t most = (int64_t)((64u << 20) / (stack->item_bytes + 1)) + 1;
    stack->capacity = expected < 1 ? 1 : expected < most ? expected : most;
    if (!(stack->data = dscc_allocate(stack->item_bytes * (size_t)stack->capacity))) return -1;
  } else if (memcmp(stack->found, item->shape, sizeof(int64_t) * (size_t)stack->ndim) != 0) {
    return dscc_fail("ValueError", "the tensors that a loop stacks have to have one shape in all iterations");
  }
  if (stack->count == stack->capacity) {
    char* larger = dscc_allocate(stack->item_bytes * (size_t)stack->capacity * 2);
    if (larger == NULL) return -1;
    memcpy(larger, stack->data, stack->item_bytes * (size_t)stack->count);
    free(stack->data);
    stack->data = larger;
    stack->capacity *= 2;
  }
  memcpy(stack->data + stack->item_bytes * (size_t)stack->count++, dscc_data(item), stack->item_bytes);
  return 0;
}

static void reverse(Stack* stack) {
  char spare[512];
  for (int64_t i = 0, j = stack->count - 1; i < j; ++i, --j) {
    char *a = stack->data + stack->item_bytes * (size_t)i, *b = stack->data + stack->item_bytes * (size_t)j;
    for (size_t done = 0; done < stack->item_bytes; done += sizeof spare) {
      size_t bytes = stack->item_bytes - done < sizeof spare ? stack->item_bytes - done : sizeof spare;
      memcpy(spare, a + done, bytes);
      memcpy(a + done, b + done, bytes);
      memcpy(b + done, spare, bytes);
    }
  }
}

static TVMFFIObjectHandle finish(Stack* stack) {
  int64_t shape[stack->ndim + 1];
  shape[0] = stack->count;
  memcpy(shape + 1, stack->count ? stack->found : stack->shape, sizeof(int64_t) * (size_t)stack->ndim);
  if (stack->count == 0) return dscc_new_tensor(stack->ndim + 1, shape, stack->dtype);
  if (stack->backwards) reverse(stack);
  char* data = stack->data;
  stack->data = NULL;
  return dscc_wrap(data, stack->ndim + 1, shape, stack->dtype);
}

// The array of what was carried and what was stacked.
static int collect(const TVMFFIAny* values, int carried, Stack* stacks, int stacked, TVMFFIAny* result) {
  TVMFFIAny outputs[carried + stacked + 1];
  memcpy(outputs, values, sizeof(TVMFFIAny) * (size_t)carried);
  int made = 0, status = -1;
  for (; made < stacked; ++made) {
    TVMFFIObjectHandle whole = finish(&stacks[made]);
    if (whole == NULL) break;
    outputs[carried + made] = (TVMFFIAny){0};
    dscc_set_object(&outputs[carried + made], whole);
  }
  if (made == stacked) status = dscc_array(outputs, carried + stacked, result);
  for (int i = 0; i < made; ++i) dscc_drop(&outputs[carried + i]);
  return status;
}

// Slice `index` of a tensor along its first axis. The memory of the previous one is used again if nobody else has it.
static int take(const DLTensor* whole, int64_t index, TVMFFIAny* slice) {
  if (slice->type_index == kTVMFFINone || !is_unique(slice)) {
    TVMFFIObjectHandle fresh = dscc_new_tensor(whole->ndim - 1, whole->shape + 1, whole->dtype);
    if (fresh == NULL) return -1;
    dscc_drop(slice);
    dscc_set_object(slice, fresh);
  }
  size_t bytes = dscc_bytes(dscc_tensor(slice));
  memcpy(dscc_data(dscc_tensor(slice)), (char*)dscc_data(whole) + bytes * (size_t)index, bytes);
  return 0;
}

static int set_index(TVMFFIAny* value, int64_t index) {
  if (value->type_index == kTVMFFINone || !is_unique(value)) {
    TVMFFIObjectHandle fresh = dscc_new_tensor(0, NULL, (DLDataType){kDLInt, 64, 1});
    if (fresh == NULL) return -1;
    dscc_drop(value);
    dscc_set_object(value, fresh);
  }
  *(int64_t*)dscc_data(dscc_tensor(value)) = index;
  return 0;
}

// A shape whose first number is the index of the iteration; the others are those of `sizes`.
static int set_sizes(TVMFFIAny* value, const TVMFFIAny* sizes, int64_t index) {
  if (value->type_index != kTVMFFINone && is_unique(value)) {
    ((int64_t*)dscc_numbers(value, NULL))[0] = index;  // TVM has copied the numbers out of it
    return 0;
  }
  static _Atomic(TVMFFIObjectHandle) make_shape;
  TVMFFIObjectHandle function = make_shape;
  if (function == NULL) {
    TVMFFIByteArray text = {"ffi.Shape", 9};
    if (TVMFFIFunctionGetGlobal(&text, &function) != 0) return -1;
    if (function == NULL) return dscc_fail("RuntimeError", "TVM's runtime lacks ffi.Shape");
    make_shape = function;
  }
  int64_t size;
  const int64_t* numbers = dscc_numbers(sizes, &size);
  TVMFFIAny elements[size];
  for (int64_t i = 0; i < size; ++i) {
    elements[i] = (TVMFFIAny){.type_index = kTVMFFIInt, .v_int64 = i == 0 ? index : numbers[i]};
  }
  dscc_drop(value);
  return TVMFFIFunctionCall(function, elements, (int32_t)size, value);
}

// dscc.loop(vm, body, plan, [trips], [condition], [sizes], scanned..., carried..., captured...): the last values of what is
// carried, then what is stacked, as an array.
//
// body([sizes], [index], slices..., carried..., captured...) gives ([condition], carried..., stacked...).
//
// `plan` is a shape of these numbers: flags; trips, if they are no argument and not unlimited; how many are scanned,
// carried and stacked; a 1 for each that is scanned backwards, else 0; and for each that is stacked: 1 if backwards, the
// code and the bits of its element type, its rank and its dimensions, 0 for one that is not known.
enum { TRIPS = 1, UNLIMITED = 2, CONDITION = 4, SIZES = 8, INDEX = 16, GOES_ON = 32 };
// TRIPS, CONDITION, SIZES: there is such an argument. INDEX: the body takes the index of the iteration as a tensor.
// GOES_ON: the body's first result says whether another iteration follows.

DSCC_FUNCTION(loop) {
  (void)self;
  const int64_t* plan = dscc_numbers(&args[2], NULL);
  const int64_t flags = plan[0];
  int64_t trips = plan[1];
  const int scanned = (int)plan[2], carried = (int)plan[3], stacked = (int)plan[4];
  plan += 5;
  int at = 3, status = -1;
  if (flags & TRIPS) trips = dscc_integer(dscc_tensor(&args[at++]));
  if (flags & UNLIMITED) trips = INT64_MAX;
  int64_t goes_on = flags & CONDITION ? dscc_integer(dscc_tensor(&args[at++])) : 1;
  const TVMFFIAny* sizes = flags & SIZES ? &args[at++] : NULL;
  const TVMFFIAny* inputs = &args[at];
  const int captured = count - at - scanned - carried;
  const int64_t* backwards = plan;
  plan += scanned;

  Stack stacks[stacked + 1];
  memset(stacks, 0, sizeof stacks);
  int dims = 0;
  for (int i = 0; i < stacked; ++i, plan += 4 + plan[3]) {
    stacks[i].backwards = (int)plan[0];
    stacks[i].dtype = (DLDataType){(uint8_t)plan[1], (uint8_t)plan[2], 1};
    stacks[i].ndim = (int)plan[3];
    stacks[i].shape = plan + 4;
    dims += stacks[i].ndim;
  }
  int64_t found[dims + 1];
  for (int i = 0, from = 0; i < stacked; from += stacks[i++].ndim) stacks[i].found = found + from;

  const int own = (sizes != NULL) + ((flags & INDEX) != 0), length = 2 + own + scanned + carried + captured;
  TVMFFIAny call[length];
  memset(call, 0, sizeof call);
  call[0] = args[0];
  call[1] = args[1];
  TVMFFIAny *index = &call[2 + (sizes != NULL)], *slices = &call[2 + own], *values = slices + scanned;
  for (int i = 0; i < carried; ++i) {
    values[i] = inputs[scanned + i];
    dscc_keep(&values[i]);
  }
  memcpy(values + carried, inputs + scanned + carried, sizeof(TVMFFIAny) * (size_t)captured);

  for (int64_t trip = 0; goes_on && trip < trips; ++trip) {
    if (sizes != NULL && set_sizes(&call[2], sizes, trip) != 0) goto done;
    if ((flags & INDEX) && set_index(index, trip) != 0) goto done;
    for (int i = 0; i < scanned; ++i) {
      if (take(dscc_tensor(&inputs[i]), backwards[i] ? trips - 1 - trip : trip, &slices[i]) != 0) goto done;
    }
    TVMFFIAny results = {0};
    if (invoke(call, length, &results) != 0) goto done;
    int64_t size;
    const TVMFFIAny* items = dscc_items(&results, &size);
    if (flags & GOES_ON) goes_on = dscc_integer(dscc_tensor(items++));
    for (int i = 0; i < carried; ++i) {
      dscc_keep(&items[i]);
      dscc_drop(&values[i]);
      values[i] = items[i];
    }
    int pushed = 0;
    for (int i = 0; i < stacked && pushed == 0; ++i) pushed = push(&stacks[i], &items[carried + i], trips - trip);
    dscc_drop(&results);
    if (pushed != 0) goto done;
  }

  status = collect(values, carried, stacks, stacked, result);
done:
  for (int i = 2; i < 2 + own + scanned + carried; ++i) dscc_drop(&call[i]);
  for (int i = 0; i < stacked; ++i) free(stacks[i].data);
  return status;
}

// dscc.require(vm, condition, wanted, message, values...): the values as an array, if the condition is the one wanted.
DSCC_FUNCTION(require) {
  (void)self;
  if ((dscc_integer(dscc_tensor(&args[1])) != 0) != (dscc_numbers(&args[2], NULL)[0] != 0)) {
    return dscc_fail("ValueError", dscc_text(&args[3]));
  }
  return dscc_array(&args[4], count - 4, result);
}
