/* A libamdhip64 for tests: memory is the host's. A code object for AMD's devices is not run: its launches are written
 * down, a line each in the file $FAKE_HIP_LOG, with the kernel's name, its extents, and 8 bytes of each of
 * $FAKE_HIP_ARGUMENTS arguments. Kernels that were compiled for the host, with device.h, are run: every thread of a block
 * is a context of its own that gives way at barriers, and a block follows another. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

enum { THREADS = 1024, STACK_BYTES = 1 << 16, WAVES = THREADS / 32, WORDS = 16 };

typedef void (*Entry)(void** arguments);

typedef struct {
  const void* image;
  void* opened;
} Module;

typedef struct {
  Entry entry;
  char name[512];
} Function;

static int devices(void) { return getenv("FAKE_HIP_DEVICES") ? atoi(getenv("FAKE_HIP_DEVICES")) : 1; }

int hipInit(unsigned flags) { return flags || devices() == 0 ? 100 : 0; }
int hipGetDeviceCount(int* count) { return *count = devices(), 0; }
int hipSetDevice(int device) { return device < devices() ? 0 : 101; }
int hipDeviceGetName(char* text, int size, int device) {
  return snprintf(text, size, "AMD Instinct Fake %d", device), 0;
}
int hipGetDeviceProperties(void* properties, int device) {
  (void)device;
  memset(properties, 0, 1400);
  strcpy((char*)properties, "AMD Instinct Fake");
  snprintf((char*)properties + 1160, 64, "%s:sramecc+:xnack-", getenv("FAKE_HIP_ARCH"));
  return 0;
}
int hipMemGetInfo(size_t* spare, size_t* total) { return *spare = *total = (size_t)1 << 30, 0; }
int hipMalloc(void** data, size_t size) {
  if (size > (size_t)1 << 30) return 2;
  *data = aligned_alloc(256, (size + 255) / 256 * 256 + 256);
  return 0;
}
int hipFree(void* data) { return free(data), 0; }
int hipMemcpyAsync(void* to, const void* from, size_t size, int kind, void* stream) {
  return memcpy(to, from, size), kind == 4 && stream == NULL ? 0 : 1;
}
int hipStreamSynchronize(void* stream) { return stream == NULL ? 0 : 1; }
const char* hipGetErrorString(int code) { return code == 2 ? "out of memory" : code == 719 ? "threads wait for ever" : "fake error"; }

int hipModuleLoadData(Module** module, const void* image) {
  const Elf64_Ehdr* header = image;
  if (memcmp(image, ELFMAG, SELFMAG) != 0) return 200;
  *module = calloc(1, sizeof **module);
  (*module)->image = image;
  if (header->e_machine != EM_X86_64) return 0;
  size_t size = header->e_shoff + (size_t)header->e_shnum * header->e_shentsize;  /* sections come last */
  int file = memfd_create("kernels", 0);
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", file);
  if (file < 0 || write(file, image, size) != (ssize_t)size) return 200;
  (*module)->opened = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if ((*module)->opened == NULL) fprintf(stderr, "%s\n", dlerror());
  return (*module)->opened ? 0 : 200;  /* the file stays open: the loader tells libraries apart by their paths */
}
int hipModuleUnload(Module* module) { return free(module), 0; }
int hipModuleGetFunction(Function** function, Module* module, const char* name) {
  char call[600];
  *function = calloc(1, sizeof **function);
  strcpy((*function)->name, name);
  if (module->opened == NULL) return 0;
  snprintf(call, sizeof call, "dscc_call_%s", name);
  (*function)->entry = (Entry)dlsym(module->opened, call);
  return (*function)->entry ? 0 : 500;
}

/* What kernels see of the thread that runs. */
unsigned dscc_local[3], dscc_group[3], dscc_thread;

static struct Thread {
  ucontext_t at;
  char* stack;
  int done;
} threads[THREADS];
static struct Meeting {
  unsigned arrived, number;
} block_meeting, wave_meetings[WAVES];
static float values[2][WAVES][2][64][WORDS];
static ucontext_t scheduler;
static unsigned count, current, sizes[3], progress;
static Entry entry;
static void** passed;

static void run(void) {
  entry(passed);
  threads[current].done = 1, ++progress;
  swapcontext(&threads[current].at, &scheduler);
}

static void meet(struct Meeting* meeting, unsigned expected) {
  unsigned mine = meeting->number;
  if (++meeting->arrived == expected) {
    meeting->arrived = 0;
    ++meeting->number, ++progress;
    return;
  }
  while (meeting->number == mine) swapcontext(&threads[current].at, &scheduler);
}

void dscc_meet_block(void) { meet(&block_meeting, count); }

/* What all lanes of this thread's wavefront have given: two arrays of `n` floats each, by lane. They stay as they are
 * until the lanes give something for the second time after this. */
float (*dscc_given(unsigned lanes, const float* first, const float* second, unsigned n))[64][WORDS] {
  unsigned wave = current / lanes, slot = wave_meetings[wave].number % 2;
  memcpy(values[slot][wave][0][current % lanes], first, n * sizeof *first);
  memcpy(values[slot][wave][1][current % lanes], second, n * sizeof *second);
  meet(&wave_meetings[wave], lanes);
  return values[slot][wave];
}

/* 0, or an error if threads wait for others that do not come: a barrier or a matrix instruction that not all reach. */
static int run_block(void) {
  memset(&block_meeting, 0, sizeof block_meeting);
  memset(wave_meetings, 0, sizeof wave_meetings);
  for (unsigned i = 0; i < count; ++i) {
    if (threads[i].stack == NULL) threads[i].stack = malloc(STACK_BYTES);
    getcontext(&threads[i].at);
    threads[i].at.uc_stack.ss_sp = threads[i].stack;
    threads[i].at.uc_stack.ss_size = STACK_BYTES;
    threads[i].at.uc_link = NULL;
    threads[i].done = 0;
    makecontext(&threads[i].at, run, 0);
  }
  for (unsigned left = count; left > 0;) {
    unsigned before = progress;
    for (current = 0; current < count; ++current) {
      if (threads[current].done) continue;
      dscc_local[0] = current % sizes[0];
      dscc_local[1] = current / sizes[0] % sizes[1];
      dscc_local[2] = current / sizes[0] / sizes[1];
      dscc_thread = current;
      swapcontext(&scheduler, &threads[current].at);
      left -= threads[current].done;
    }
    if (progress == before) return 719;
  }
  return 0;
}

int hipModuleLaunchKernel(Function* function, unsigned bx, unsigned by, unsigned bz, unsigned tx, unsigned ty,
                          unsigned tz, unsigned shared, void* stream, void** arguments, void** extra) {
  if (shared != 0 || stream != NULL || extra != NULL) return 1;
  if (function->entry != NULL) {
    entry = function->entry, passed = arguments, count = tx * ty * tz;
    sizes[0] = tx, sizes[1] = ty, sizes[2] = tz;
    if (count > THREADS) return 1;
    for (dscc_group[2] = 0; dscc_group[2] < bz; ++dscc_group[2])
      for (dscc_group[1] = 0; dscc_group[1] < by; ++dscc_group[1])
        for (dscc_group[0] = 0; dscc_group[0] < bx; ++dscc_group[0])
          if (run_block() != 0) return 719;
    return 0;
  }
  FILE* log = fopen(getenv("FAKE_HIP_LOG"), "a");
  fprintf(log, "%s %u %u %u %u %u %u", function->name, bx, by, bz, tx, ty, tz);
  for (int i = 0; i < atoi(getenv("FAKE_HIP_ARGUMENTS")); ++i) {
    int64_t value;
    memcpy(&value, arguments[i], sizeof value);
    fprintf(log, " %lld", (long long)value);
  }
  fprintf(log, "\n");
  fclose(log);
  return 0;
}
