// Memory of the values between kernels: planned for the sizes of a call, kept from run to run, and in huge pages where
// the system gives any.
//
// malloc returns large blocks to the system as soon as they are free, and the next run gets other pages for them, of
// 4 KB, that the system fills with zeros: text detection on 640 x 640 pixels took 4,000 page faults in every run.
//
// A region of addresses is asked for once. Blocks lie in it side by side, each behind its header, and the first gap that
// is large enough is taken: what is touched stays small and is touched again. What a few thousand allocations in a row
// did not need goes back to the system, and all of it when the library is unloaded.

#include <pthread.h>
#include <sys/mman.h>

#include "dscc.h"

enum {
  LINE = 64,          // of the cache; sizes of blocks are multiples of it
  SMALL = 4096,       // bytes below which malloc serves better
  HUGE_PAGE = 2 << 20,
  FIRST = 256 << 10,  // bytes at the start of a region that are not in huge pages
  WINDOW = 4096       // allocations after which memory that was not needed is returned
};
static const size_t RESERVE = (size_t)1 << 30;  // bytes of addresses in a region, not of memory

typedef struct Region Region;

typedef struct Block {
  Region* region;          // NULL: of malloc
  size_t size;             // in bytes, with this header
  struct Block* before;    // the block that ends where this one begins, in the same region
  struct Block *last, *next;  // gaps of the region, by address
  int is_gap;
} Block;

struct Region {
  char *begin, *end;
  Block* gaps;
  char *high, *touched;  // the end of what was used: in this window, and since memory was last returned
  Region* next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Region* regions;
static int allocations;  // in this window

static size_t up(size_t size, size_t unit) { return (size + unit - 1) / unit * unit; }

static Block* after(const Block* block) {
  char* end = (char*)block + block->size;
  return end < block->region->end ? (Block*)end : NULL;
}

static void remove_gap(Block* gap) {
  gap->is_gap = 0;
  *(gap->last != NULL ? &gap->last->next : &gap->region->gaps) = gap->next;
  if (gap->next != NULL) gap->next->last = gap->last;
}

static void add_gap(Block* gap) {
  Block *last = NULL, *next = gap->region->gaps;
  for (; next != NULL && next < gap; next = next->next) last = next;
  gap->is_gap = 1;
  gap->last = last;
  gap->next = next;
  *(last != NULL ? &last->next : &gap->region->gaps) = gap;
  if (next != NULL) next->last = gap;
}

// A region with room for a block of this size; NULL if there is no memory.
static Region* new_region(size_t size) {
  size_t reserved = size > RESERVE / 2 ? size : RESERVE;
  void* place = MAP_FAILED;
  for (;; reserved /= 2) {
    reserved = up(reserved < size ? size : reserved, HUGE_PAGE);
    place = mmap(NULL, reserved + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (place != MAP_FAILED || reserved <= up(size, HUGE_PAGE)) break;
  }
  Region* region = place == MAP_FAILED ? NULL : (Region*)malloc(sizeof(Region));
  if (region == NULL) {
    if (place != MAP_FAILED) munmap(place, reserved + HUGE_PAGE);
    return NULL;
  }
  // It begins in small pages: the values of a small model need no more.
  char* begin = (char*)up((size_t)place + FIRST, HUGE_PAGE) - FIRST;
  char* end = begin + reserved;
  if (begin > (char*)place) munmap(place, (size_t)(begin - (char*)place));
  if (end < (char*)place + reserved + HUGE_PAGE) munmap(end, (size_t)((char*)place + reserved + HUGE_PAGE - end));
#ifdef MADV_HUGEPAGE
  madvise(begin + FIRST, reserved - FIRST, MADV_HUGEPAGE);
#endif
  *region = (Region){begin, end, NULL, begin, begin, regions};
  Block* all = (Block*)begin;
  *all = (Block){region, reserved, NULL, NULL, NULL, 0};
  add_gap(all);
  regions = region;
  return region;
}

// Gives back what was not used in the last allocations.
static void begin_window(void) {
  allocations = 0;
  for (Region* region = regions; region != NULL; region = region->next) {
    char* keep = (char*)up((size_t)region->high, HUGE_PAGE);
    if (keep < region->touched) {
      madvise(keep, (size_t)(region->touched - keep), MADV_DONTNEED);
      region->touched = keep;
    }
    region->high = region->begin + sizeof(Block);
    for (Block* block = (Block*)region->begin; block != NULL; block = after(block))
      if (!block->is_gap) region->high = (char*)block + block->size + sizeof(Block);
  }
}

static Block* take(size_t size) {
  Block* gap = NULL;
  pthread_mutex_lock(&lock);
  if (++allocations > WINDOW) begin_window();
  for (Region* region = regions; region != NULL && gap == NULL; region = region->next)
    for (gap = region->gaps; gap != NULL && gap->size < size;) gap = gap->next;
  if (gap == NULL) {
    Region* region = new_region(size);
    gap = region == NULL ? NULL : region->gaps;
  }
  if (gap != NULL) {
    Region* region = gap->region;
    remove_gap(gap);
    if (gap->size >= size + SMALL) {
      Block* rest = (Block*)((char*)gap + size);
      *rest = (Block){region, gap->size - size, gap, NULL, NULL, 0};
      gap->size = size;
      if (after(rest) != NULL) after(rest)->before = rest;
      add_gap(rest);
    }
    char* end = (char*)gap + gap->size + sizeof(Block);  // of the gap behind it
    if (end > region->high) region->high = end;
    if (end > region->touched) region->touched = end;
  }
  pthread_mutex_unlock(&lock);
  return gap;
}

static void release(Block* block) {
  if (block->region == NULL) {
    free(block);
    return;
  }
  pthread_mutex_lock(&lock);
  Block *before = block->before, *next = after(block);
  if (next != NULL && next->is_gap) {
    remove_gap(next);
    block->size += next->size;
  }
  if (before != NULL && before->is_gap) {
    before->size += block->size;
    block = before;
  } else {
    add_gap(block);
  }
  if (after(block) != NULL) after(block)->before = block;
  pthread_mutex_unlock(&lock);
}

static DLDataType type_of(const TVMFFIAny* code) {
  return (DLDataType){(uint8_t)code->v_int64, (uint8_t)(code->v_int64 >> 8), (uint16_t)(code->v_int64 >> 16)};
}

static void free_block(DLManagedTensor* managed) { release((Block*)managed->manager_ctx); }

// The bytes of a tensor; -1 after an error.
static int64_t bytes_of(const int64_t* shape, int64_t ndim, DLDataType dtype) {
  int64_t total = (dtype.bits == 1 ? 8 : dtype.bits) * (int64_t)dtype.lanes;
  for (int64_t axis = 0; axis < ndim; ++axis) {
    if (shape[axis] < 0) return dscc_fail("ValueError", "a tensor would have a negative size");
    if (__builtin_mul_overflow(total, shape[axis], &total) || total > INT64_MAX - (64 << 20))
      return dscc_fail("MemoryError", "there is not enough memory");
  }
  return (total + 7) / 8;
}

// A new tensor of so many bytes. The block, the tensor, its shape and its strides precede the data.
static int new_tensor(const int64_t* shape, int64_t ndim, DLDataType dtype, int64_t bytes, TVMFFIAny* result) {
  size_t header = up(sizeof(Block) + sizeof(DLManagedTensor) + 2 * (size_t)ndim * sizeof(int64_t), LINE);
  size_t size = up(header + (size_t)bytes, LINE);
  Block* block = NULL;
  if (size >= SMALL)
    block = take(size);
  else if (posix_memalign((void**)&block, LINE, size) == 0)
    block->region = NULL;
  else
    block = NULL;
  if (block == NULL) return dscc_fail("MemoryError", "there is not enough memory");
  DLManagedTensor* managed = (DLManagedTensor*)(block + 1);
  int64_t *sizes = (int64_t*)(managed + 1), *strides = sizes + ndim;
  for (int64_t axis = 0; axis < ndim; ++axis) sizes[axis] = shape[axis];
  dscc_compact(ndim, sizes, strides);
  managed->dl_tensor = (DLTensor){(char*)block + header, {kDLCPU, 0}, (int32_t)ndim, dtype, sizes, strides, 0};
  managed->manager_ctx = block;
  managed->deleter = free_block;
  TVMFFIObjectHandle tensor = NULL;
  if (TVMFFITensorFromDLPack(managed, 0, 0, &tensor) != 0) {
    release(block);
    return -1;
  }
  dscc_set_object(result, tensor);
  return 0;
}

// dscc.empty(vm, shape, type as dscc/memory.py writes it): a new tensor, its values not set.
DSCC_FUNCTION(empty) {
  (void)self, (void)count;
  int64_t ndim;
  const int64_t* shape = dscc_numbers(&args[1], &ndim);
  int64_t bytes = bytes_of(shape, ndim, type_of(&args[2]));
  return bytes < 0 ? -1 : new_tensor(shape, ndim, type_of(&args[2]), bytes, result);
}

// Where the values of a function lie in its arena, for one set of sizes. The numbers follow it.
typedef struct Plan {
  struct Plan* next;
  int64_t count, total;  // values; bytes
  int64_t *lives, *sizes, *offsets;
} Plan;

enum { PLANS = 16 };  // that are kept: as many sets of sizes as come in turns
static Plan* plans;   // the one used last first

// Largest first, each at the lowest place that is free as long as it lives.
static int64_t lay_out(Plan* plan, int64_t* order) {
  int64_t end = 0;
  for (int64_t i = 0; i < plan->count; ++i) {  // sorted by size
    int64_t at = i;
    for (; at > 0 && plan->sizes[order[at - 1]] < plan->sizes[i]; --at) order[at] = order[at - 1];
    order[at] = i;
  }
  for (int64_t i = 0; i < plan->count; ++i) {  // order[0..i) is sorted by place from here on
    int64_t value = order[i], size = (int64_t)up((size_t)plan->sizes[value], LINE), at = 0;
    for (int64_t j = 0; j < i; ++j) {
      int64_t other = order[j], begin = plan->offsets[other];
      if (plan->lives[2 * other] > plan->lives[2 * value + 1] || plan->lives[2 * other + 1] < plan->lives[2 * value])
        continue;
      if (begin - at >= size) break;
      int64_t behind = begin + (int64_t)up((size_t)plan->sizes[other], LINE);
      if (behind > at) at = behind;
    }
    plan->offsets[value] = at;
    if (at + size > end) end = at + size;
    int64_t j = i;
    for (; j > 0 && plan->offsets[order[j - 1]] > at; --j) order[j] = order[j - 1];
    order[j] = value;
  }
  return end;
}

// The plan for these sizes, first in `plans`, which is locked; NULL if there is no memory.
static Plan* planned(const int64_t* lives, const int64_t* sizes, int64_t count) {
  size_t bytes = (size_t)count * sizeof(int64_t);
  Plan** place = &plans;
  for (int kept = 0; *place != NULL; place = &(*place)->next) {
    Plan* plan = *place;
    int found = plan->count == count && !memcmp(plan->sizes, sizes, bytes) && !memcmp(plan->lives, lives, 2 * bytes);
    if (found || ++kept == PLANS) {
      *place = plan->next;
      if (!found) {
        free(plan);
        break;
      }
      plan->next = plans;
      return plans = plan;
    }
  }
  Plan* plan = (Plan*)malloc(sizeof(Plan) + 4 * bytes);
  int64_t* order = (int64_t*)malloc(bytes + 1);
  if (plan != NULL && order != NULL) {
    int64_t* numbers = (int64_t*)(plan + 1);
    *plan = (Plan){plans, count, 0, numbers, numbers + 2 * count, numbers + 3 * count};
    memcpy(plan->lives, lives, 2 * bytes);
    memcpy(plan->sizes, sizes, bytes);
    plan->total = lay_out(plan, order);
    plans = plan;
  } else {
    free(plan);
    plan = NULL;
  }
  free(order);
  return plan;
}

// dscc.arena(vm, lives, sizes): memory for the values of one call of a function. `lives` has two numbers for each, when
// it is made and when it is last read, both included; `sizes` is in bytes. Sizes that cannot be are found by dscc.place,
// when it is their turn: the checks before it say it better. The arena begins with the offset and the size of each.
DSCC_FUNCTION(arena) {
  (void)self, (void)count;
  static const DLDataType bytes = {kDLUInt, 8, 1};
  const int64_t most = (int64_t)1 << 46;
  int64_t values;
  const int64_t *lives = dscc_numbers(&args[1], NULL), *given = dscc_numbers(&args[2], &values);
  int64_t sizes[values], table = (int64_t)up((size_t)(2 * values) * sizeof(int64_t), LINE);
  for (int64_t i = 0; i < values; ++i) sizes[i] = given[i] < 0 || given[i] > most ? 0 : given[i];
  pthread_mutex_lock(&lock);
  Plan* plan = planned(lives, sizes, values);
  int64_t offsets[values], total = plan == NULL ? 0 : table + plan->total;
  if (plan != NULL) memcpy(offsets, plan->offsets, sizeof(offsets));
  pthread_mutex_unlock(&lock);
  if (plan == NULL) return dscc_fail("MemoryError", "there is not enough memory");
  if (new_tensor(&total, 1, bytes, total, result) != 0) return -1;
  int64_t* numbers = (int64_t*)dscc_data(dscc_tensor(result));
  for (int64_t i = 0; i < values; ++i) {
    numbers[2 * i] = table + offsets[i];
    numbers[2 * i + 1] = sizes[i];
  }
  return 0;
}

// dscc.place(vm, arena, number, shape, type): the tensor of that number, its values not set.
DSCC_FUNCTION(place) {
  (void)self, (void)count;
  char* arena = (char*)dscc_data(dscc_tensor(&args[1]));
  const int64_t* numbers = (const int64_t*)arena + 2 * args[2].v_int64;
  int64_t ndim;
  const int64_t* shape = dscc_numbers(&args[3], &ndim);
  DLDataType dtype = type_of(&args[4]);
  int64_t bytes = bytes_of(shape, ndim, dtype), strides[ndim + 1];
  if (bytes < 0) return -1;
  if (bytes > numbers[1]) return dscc_fail("MemoryError", "there is not enough memory");
  dscc_compact(ndim, shape, strides);
  DLTensor wanted = {arena + numbers[0], {kDLCPU, 0}, (int32_t)ndim, dtype, (int64_t*)shape, strides, 0};
  TVMFFIObjectHandle tensor = NULL;
  if (TVMFFITensorCreateUnsafeView((TVMFFIObjectHandle)args[1].v_obj, &wanted, &tensor) != 0) return -1;
  dscc_set_object(result, tensor);
  return 0;
}

// A fork must not find the blocks half moved.
static void before_fork(void) { pthread_mutex_lock(&lock); }
static void after_fork(void) { pthread_mutex_unlock(&lock); }
__attribute__((constructor)) static void on_load(void) { pthread_atfork(before_fork, after_fork, after_fork); }

// A library is unloaded after the last of its tensors; but when the process ends, there may be some in use.
__attribute__((destructor)) static void on_unload(void) {
  pthread_mutex_lock(&lock);
  for (Plan* plan = plans; plan != NULL; plan = plans) {
    plans = plan->next;
    free(plan);
  }
  for (Region** place = &regions; *place != NULL;) {
    Region* region = *place;
    if (!((Block*)region->begin)->is_gap || after((Block*)region->begin) != NULL) {
      place = &region->next;
      continue;
    }
    *place = region->next;
    munmap(region->begin, (size_t)(region->end - region->begin));
    free(region);
  }
  pthread_mutex_unlock(&lock);
}
