// Blocks of all sizes from four threads at once, some freed by another thread than took them, and a fork among it.
// Built with the thread sanitizer where there is one. Prints what is wrong, then how many regions are left.
#include "memory.c"

#include <stdatomic.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct {
  TVMFFIObject object;
  DLTensor tensor;
  DLManagedTensor* managed;
} Object;

int TVMFFITensorFromDLPack(DLManagedTensor* from, int32_t alignment, int32_t contiguous, TVMFFIObjectHandle* out) {
  (void)alignment, (void)contiguous;
  Object* made = calloc(1, sizeof(Object));
  made->tensor = from->dl_tensor;
  made->managed = from;
  *out = made;
  return 0;
}
int TVMFFITensorCreateUnsafeView(TVMFFIObjectHandle source, const DLTensor* wanted, TVMFFIObjectHandle* out) {
  (void)source, (void)wanted, (void)out;
  return -1;
}
static _Thread_local const char* raised = "";
void TVMFFIErrorSetRaisedFromCStr(const char* kind, const char* message) { (void)message, raised = kind; }

static Object* take_tensor(const int64_t* sizes, size_t ndim, uint8_t bits) {
  struct {
    TVMFFIObject object;
    TVMFFIShapeCell cell;
  } shape = {{0}, {sizes, ndim}};
  TVMFFIAny args[3] = {{0}, {0}, {0}}, result = {0};
  args[1].v_obj = &shape.object;
  args[2].v_int64 = kDLUInt | bits << 8 | 1 << 16;
  return dscc_empty(NULL, args, 3, &result) == 0 ? (Object*)result.v_obj : NULL;
}

static void drop(Object* object) {
  object->managed->deleter(object->managed);
  free(object);
}

static uint32_t draw(uint32_t* state) {
  *state = *state * 1664525u + 1013904223u;
  return *state >> 8;
}

enum { THREADS = 4, SLOTS = 48, STEPS = 6000 };
static _Atomic(Object*) shared[SLOTS];
static _Atomic int wrong;

static void check(Object* object) {
  const unsigned char* data = object->tensor.data;
  int64_t size = object->tensor.shape[0];
  if ((size_t)data % 64 || object->tensor.strides[0] != 1) ++wrong;
  for (int64_t at = 0; at < size; at += size > 4096 ? size / 64 : 1)
    if (data[at] != (unsigned char)size) ++wrong;
  if (size && data[size - 1] != (unsigned char)size) ++wrong;
  drop(object);
}

static void* worker(void* seed) {
  uint32_t state = (uint32_t)(size_t)seed;
  for (int step = 0; step < STEPS; ++step) {
    int64_t size = draw(&state) % (draw(&state) % 4 ? 9000 : 700000);
    Object* made = take_tensor(&size, 1, 8);
    memset(made->tensor.data, (unsigned char)size, (size_t)size);
    Object* old = atomic_exchange(&shared[draw(&state) % SLOTS], made);
    if (old != NULL) check(old);
    if (step == STEPS / 2) {
      pid_t child = fork();
      if (child == 0) {
        int64_t more = 100000;
        _exit(take_tensor(&more, 1, 8) == NULL);
      }
      int status = 1;
      waitpid(child, &status, 0);
      if (status != 0) ++wrong;
    }
  }
  return NULL;
}

int main(void) {
  pthread_t threads[THREADS];
  for (size_t i = 0; i < THREADS; ++i) pthread_create(&threads[i], NULL, worker, (void*)(i + 1));
  for (int i = 0; i < THREADS; ++i) pthread_join(threads[i], NULL);
  for (int i = 0; i < SLOTS; ++i)
    if (shared[i] != NULL) check(shared[i]);
  for (Region* region = regions; region != NULL; region = region->next)
    if (!((Block*)region->begin)->is_gap || after((Block*)region->begin) != NULL || region->gaps->next != NULL) ++wrong;

  int64_t huge[] = {1 << 30, 1 << 30, 1 << 30}, negative = -1, large = 40 << 20, little = 8192;
  if (take_tensor(huge, 3, 32) != NULL || strcmp(raised, "MemoryError")) puts("more than there is was given");
  if (take_tensor(&negative, 1, 8) != NULL || strcmp(raised, "ValueError")) puts("a negative size was taken");
  Object* once = take_tensor(&large, 1, 8);
  memset(once->tensor.data, 1, (size_t)large);
  drop(once);
  char* before = regions->touched;
  for (int i = 0; i < 2 * WINDOW + 2; ++i) drop(take_tensor(&little, 1, 8));
  if (regions->touched > before - (large - 2 * HUGE_PAGE)) puts("memory that is not needed is kept");
  Object* again = take_tensor(&large, 1, 8);
  if (((char*)again->tensor.data)[large / 2] != 0) puts("what was given back is still there");
  drop(again);
  on_unload();
  int left = 0;
  for (Region* region = regions; region != NULL; region = region->next) ++left;
  printf("%d wrong, %d regions left\n", wrong, left);
  return 0;
}
