/* A libamdhip64 for tests: memory is the host's, and a launch is written down instead of made: a line in the file
 * $FAKE_HIP_LOG with the kernel's name, its extents, and 8 bytes of each of $FAKE_HIP_ARGUMENTS arguments. */

#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  const void* image;
} Module;

typedef struct {
  Module* module;
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
int hipModuleLoadData(Module** module, const void* image) {
  if (memcmp(image, "\177ELF", 4) != 0) return 200;
  *module = malloc(sizeof **module);
  (*module)->image = image;
  return 0;
}
int hipModuleUnload(Module* module) { return free(module), 0; }
int hipModuleGetFunction(Function** function, Module* module, const char* name) {
  *function = malloc(sizeof **function);
  (*function)->module = module;
  strcpy((*function)->name, name);
  return 0;
}
const char* hipGetErrorString(int code) { return code == 2 ? "out of memory" : "fake error"; }
int hipModuleLaunchKernel(Function* function, unsigned bx, unsigned by, unsigned bz, unsigned tx, unsigned ty,
                          unsigned tz, unsigned shared, void* stream, void** arguments, void** extra) {
  FILE* log = fopen(getenv("FAKE_HIP_LOG"), "a");
  fprintf(log, "%s %u %u %u %u %u %u", function->name, bx, by, bz, tx, ty, tz);
  for (int i = 0; i < atoi(getenv("FAKE_HIP_ARGUMENTS")); ++i) {
    int64_t value;
    memcpy(&value, arguments[i], sizeof value);
    fprintf(log, " %lld", (long long)value);
  }
  fprintf(log, "\n");
  fclose(log);
  return shared == 0 && stream == NULL && extra == NULL ? 0 : 1;
}
