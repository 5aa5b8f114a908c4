// Threads for the parallel loops of a model's kernels. Linked into every model's library.
//
// TVM's own pool belongs to the thread that calls: every caller gets its own, and it outlives the caller. This one
// belongs to the library: any thread may call, its own thread takes part in the work, and nothing is left when the
// library is unloaded. If the pool is busy with another caller's loop, the loop runs on the caller's thread alone.
//
// A loop is cut into some more tasks than there are threads; whoever is free claims the next one, so a helper that wakes
// up late costs nothing, and neither do steps of a loop that take unequal times. The claim is one compare-and-swap of `ticket` (generation of the loop, next task): a helper that still looks at an old loop
// cannot claim a task of the new one.

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct {
  void* sync_handle;
  int32_t num_task;
} TVMParallelGroupEnv;
typedef int (*Body)(int task, TVMParallelGroupEnv* env, void* closure);
typedef struct {
  int32_t type_index;
  uint32_t zero;
  int64_t v_int64;
} TVMFFIAny;

extern void TVMFFIErrorMoveFromRaised(void** error);
extern void TVMFFIErrorSetRaised(void* error);
extern int TVMFFIObjectDecRef(void* object);

// The pointer through which generated code launches loops. A library without a parallel loop has none.
extern int (*__TVMBackendParallelLaunch)(Body, void*, int) __attribute__((weak));

enum {
  MAX_THREADS = 256,
  SPINS = 4000,  // of a pause each: some 50 microseconds between two kernels
  PARTS = 4      // tasks for every thread
};

static pthread_t helpers[MAX_THREADS];
static _Atomic int threads = 1;  // that take part in a loop, the caller's included
static int started;              // helpers that run; changed by who holds `busy`
static atomic_flag busy = ATOMIC_FLAG_INIT;

static _Atomic uint64_t ticket;  // generation << 32 | next task
static _Atomic int tasks, pending;
static _Atomic(Body) body;
static _Atomic(void*) closure;
static _Atomic(void*) failure;  // the first error of the current loop, as an object of TVM

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static pthread_cond_t finished = PTHREAD_COND_INITIALIZER;
static _Atomic int sleepers, caller_sleeps, stopping;

static inline void pause_cpu(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");  // yield does nothing on most cores; this takes about as long as x86's pause
#endif
}

static inline uint32_t generation_of(uint64_t t) { return (uint32_t)(t >> 32); }

static void run_task(Body f, void* data, int task, int count) {
  TVMParallelGroupEnv env = {NULL, count};
  if (f(task, &env, data) != 0) {
    void *error = NULL, *none = NULL;
    TVMFFIErrorMoveFromRaised(&error);
    if (!atomic_compare_exchange_strong(&failure, &none, error) && error) TVMFFIObjectDecRef(error);
  }
}

// Claims and runs tasks of the loop `generation` until none is left.
static void help(uint32_t generation) {
  for (;;) {
    uint64_t now = atomic_load(&ticket);
    Body f = atomic_load(&body);
    void* data = atomic_load(&closure);
    int count = atomic_load(&tasks);
    int task = (int)(uint32_t)now;
    if (generation_of(now) != generation || task >= count) return;
    if (!atomic_compare_exchange_weak(&ticket, &now, now + 1)) continue;
    run_task(f, data, task, count);
    if (atomic_fetch_sub(&pending, 1) == 1 && atomic_load(&caller_sleeps)) {
      pthread_mutex_lock(&lock);
      pthread_cond_signal(&finished);
      pthread_mutex_unlock(&lock);
    }
  }
}

static void* helper_main(void* argument) {
  uint32_t seen = (uint32_t)(uintptr_t)argument;
  for (;;) {
    for (int i = 0; i < SPINS && generation_of(atomic_load(&ticket)) == seen && !atomic_load(&stopping); ++i) pause_cpu();
    if (generation_of(atomic_load(&ticket)) == seen) {
      pthread_mutex_lock(&lock);
      atomic_fetch_add(&sleepers, 1);
      while (generation_of(atomic_load(&ticket)) == seen && !atomic_load(&stopping)) pthread_cond_wait(&wake, &lock);
      atomic_fetch_sub(&sleepers, 1);
      pthread_mutex_unlock(&lock);
    }
    if (atomic_load(&stopping)) return NULL;
    seen = generation_of(atomic_load(&ticket));
    help(seen);
  }
}

static void stop_helpers(void) {
  pthread_mutex_lock(&lock);
  atomic_store(&stopping, 1);
  pthread_cond_broadcast(&wake);
  pthread_mutex_unlock(&lock);
  for (int i = 0; i < started; ++i) pthread_join(helpers[i], NULL);
  started = 0;
  atomic_store(&stopping, 0);
}

static void start_helpers(void) {
  uintptr_t seen = generation_of(atomic_load(&ticket));
  while (started < threads - 1 && pthread_create(&helpers[started], NULL, helper_main, (void*)seen) == 0) ++started;
  threads = started + 1;  // the system may refuse some
}

static int launch(Body f, void* data, int count) {
  (void)count;  // 0 from generated code: as many as there are
  if (threads == 1 || atomic_flag_test_and_set(&busy)) {
    TVMParallelGroupEnv alone = {NULL, 1};
    return f(0, &alone, data);
  }
  if (started < threads - 1) start_helpers();
  count = threads * PARTS;
  atomic_store(&body, f);
  atomic_store(&closure, data);
  atomic_store(&tasks, count);
  atomic_store(&pending, count);
  uint32_t generation = generation_of(atomic_load(&ticket)) + 1;
  atomic_store(&ticket, (uint64_t)generation << 32);
  if (atomic_load(&sleepers)) {
    pthread_mutex_lock(&lock);
    pthread_cond_broadcast(&wake);
    pthread_mutex_unlock(&lock);
  }
  help(generation);
  for (int i = 0; i < SPINS && atomic_load(&pending); ++i) pause_cpu();
  if (atomic_load(&pending)) {
    pthread_mutex_lock(&lock);
    atomic_store(&caller_sleeps, 1);
    while (atomic_load(&pending)) pthread_cond_wait(&finished, &lock);
    atomic_store(&caller_sleeps, 0);
    pthread_mutex_unlock(&lock);
  }
  void* error = atomic_exchange(&failure, NULL);
  atomic_flag_clear(&busy);
  if (error == NULL) return 0;
  TVMFFIErrorSetRaised(error);
  TVMFFIObjectDecRef(error);
  return -1;
}

// The same for functions in C that are linked into the library: see dscc/library/dscc.h.
__attribute__((visibility("hidden"))) int dscc_launch(Body f, void* data, int count) { return launch(f, data, count); }

// In the child of a fork there are no helpers, and whoever held the pool is gone.
static void after_fork(void) {
  started = 0;
  pthread_mutex_init(&lock, NULL);
  pthread_cond_init(&wake, NULL);
  pthread_cond_init(&finished, NULL);
  atomic_store(&sleepers, 0);
  atomic_store(&caller_sleeps, 0);
  atomic_flag_clear(&busy);
}

__attribute__((constructor)) static void on_load(void) { pthread_atfork(NULL, NULL, after_fork); }

// A caller that is still inside of a loop when the process ends keeps its helpers.
__attribute__((destructor)) static void on_unload(void) {
  if (!atomic_flag_test_and_set(&busy)) stop_helpers();
}

// dscc_set_threads(count), by the calling convention of TVM's functions: from now on a loop uses `count` threads.
// To be called before the first run, and not while one is going on.
__attribute__((visibility("default"))) int __tvm_ffi_dscc_set_threads(void* self, const TVMFFIAny* arguments, int32_t count,
                                                                      TVMFFIAny* result) {
  (void)self;
  int wanted = count == 1 ? (int)arguments[0].v_int64 : 1;
  stop_helpers();
  threads = wanted < 1 ? 1 : wanted > MAX_THREADS ? MAX_THREADS : wanted;
  if (&__TVMBackendParallelLaunch) __TVMBackendParallelLaunch = launch;
  result->type_index = 0;
  result->zero = 0;
  result->v_int64 = 0;
  return 0;
}
