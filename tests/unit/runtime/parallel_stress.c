// Loops from four threads at once, for 1 to 6 helpers; some loops fail. Built with the thread sanitizer where there is one.
#include "parallel.c"

#include <stdio.h>
#include <string.h>

static _Atomic int raised;  // errors made and not yet dropped; an error is any pointer that is not null
static _Thread_local void* current;

void TVMFFIErrorMoveFromRaised(void** error) {
  *error = current;
  current = NULL;
}
void TVMFFIErrorSetRaised(void* error) {
  atomic_fetch_add(&raised, 1);
  current = error;
}
int TVMFFIObjectDecRef(void* object) {
  (void)object;
  atomic_fetch_sub(&raised, 1);
  return 0;
}
int (*__TVMBackendParallelLaunch)(Body, void*, int);

typedef struct {
  int size, add, bad;
  int* out;
} Loop;

static int body_of_loop(int task, TVMParallelGroupEnv* env, void* closure) {
  Loop* loop = closure;
  int step = (loop->size + env->num_task - 1) / env->num_task;
  for (int i = task * step; i < (task + 1) * step && i < loop->size; ++i) {
    loop->out[i] += loop->add;
    if (i == loop->bad) {
      TVMFFIErrorSetRaised(loop);
      return -1;
    }
  }
  return 0;
}

static void* caller(void* unused) {
  (void)unused;
  int out[1000];
  for (int round = 1; round <= 2000; ++round) {
    memset(out, 0, sizeof out);
    Loop loop = {round % 1000 + 1, round, round % 7 ? -1 : round % 100, out};
    int status = __TVMBackendParallelLaunch(body_of_loop, &loop, 0), fails = loop.bad >= 0 && loop.bad < loop.size;
    if (status != (fails ? -1 : 0) || (current != NULL) != fails) abort();
    if (fails) {
      TVMFFIObjectDecRef(current);
      current = NULL;
    } else {
      for (int i = 0; i < loop.size; ++i)
        if (out[i] != round) abort();
    }
  }
  return NULL;
}

int main(void) {
  for (int count = 1; count <= 6; ++count) {
    TVMFFIAny argument = {1, 0, count}, result;
    pthread_t callers[4];
    __tvm_ffi_dscc_set_threads(NULL, &argument, 1, &result);
    for (int i = 0; i < 4; ++i) pthread_create(&callers[i], NULL, caller, NULL);
    for (int i = 0; i < 4; ++i) pthread_join(callers[i], NULL);
  }
  printf("%d errors left\n", atomic_load(&raised));
  return 0;
}
