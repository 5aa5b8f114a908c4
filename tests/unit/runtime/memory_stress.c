// Blocks of all sizes from four threads at once, some freed by another thread than took them, arenas, and a fork among
// it.
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

// An arena of values with lives and sizes by chance: which of them live at the same time lie apart, inside of it.
static void check_arena(uint32_t* state) {
  enum { MOST = 40 };
  int64_t values = 1 + draw(state) % MOST, lives[2 * MOST], sizes[MOST], alive = 0;
  for (int64_t i = 0; i < values; ++i) {
    lives[2 * i] = draw(state) % 100;
    lives[2 * i + 1] = lives[2 * i] + draw(state) % (draw(state) % 8 ? 6 : 100);
    sizes[i] = draw(state) % (draw(state) % 4 ? 3000 : 60000);
  }
  for (int64_t at = 0; at < 200; ++at) {
    int64_t now = 0;
    for (int64_t i = 0; i < values; ++i)
      if (lives[2 * i] <= at && at <= lives[2 * i + 1]) now += (int64_t)up((size_t)sizes[i], LINE);
    if (now > alive) alive = now;
  }
  struct {
    TVMFFIObject object;
    TVMFFIShapeCell cell;
  } numbers[2] = {{{0}, {lives, (size_t)(2 * values)}}, {{0}, {sizes, (size_t)values}}};
  TVMFFIAny args[3] = {{0}, {0}, {0}}, result = {0};
  for (int i = 0; i < 2; ++i) args[1 + i].v_obj = &numbers[i].object;
  if (dscc_arena(NULL, args, 3, &result) != 0) {
    ++wrong;
    return;
  }
  Object* arena = (Object*)result.v_obj;
  const int64_t* table = arena->tensor.data;
  int64_t begins = (int64_t)up((size_t)(2 * values) * sizeof(int64_t), LINE), total = arena->tensor.shape[0];
  if (total < begins + alive || total > begins + 2 * alive) ++wrong;
  for (int64_t i = 0; i < values; ++i) {
    if (table[2 * i] < begins || table[2 * i] % LINE || table[2 * i] + sizes[i] > total || table[2 * i + 1] != sizes[i])
      ++wrong;
    for (int64_t j = 0; j < i; ++j) {
      int together = lives[2 * i] <= lives[2 * j + 1] && lives[2 * j] <= lives[2 * i + 1];
      int apart = table[2 * i] + sizes[i] <= table[2 * j] || table[2 * j] + sizes[j] <= table[2 * i];
      if (together && !apart && sizes[i] && sizes[j]) ++wrong;
    }
  }
  drop(arena);
}

static void* worker(void* seed) {
  uint32_t state = (uint32_t)(size_t)seed;
  for (int step = 0; step < STEPS; ++step) {
    int64_t size = draw(&state) % (draw(&state) % 4 ? 9000 : 700000);
    Object* made = take_tensor(&size, 1, 8);
    memset(made->tensor.data, (unsigned char)size, (size_t)size);
    Object* old = atomic_exchange(&shared[draw(&state) % SLOTS], made);
    if (old != NULL) check(old);
    if (step % 20 == 0) check_arena(&state);
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
  if (plans != NULL) puts("plans are left");
  int left = 0;
  for (Region* region = regions; region != NULL; region = region->next) ++left;
  printf("%d wrong, %d regions left\n", wrong, left);
  return 0;
}
