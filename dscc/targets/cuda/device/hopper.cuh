// Products of matrices on Hopper's tensor cores: the bulk tensor copy engine fills a ring of tiles in shared memory, one
// warp group of 128 threads keeps it filled, the others multiply (wgmma). Included into the CUDA source that TVM writes.
//
// A ring slot holds rows x 128 bytes of the left factor and columns x 128 bytes of the right one, both in the layout
// that the copy engine calls SWIZZLE_128B: within every 1024 bytes, 16-byte unit u of row r is found at u ^ (r % 8).
#ifndef DSCC_HOPPER
#define DSCC_HOPPER

#ifdef __CUDACC_RTC__  // NVRTC has no cuda.h
struct alignas(64) CUtensorMap {
  unsigned long long opaque[16];
};
#endif

namespace dscc {

__device__ __forceinline__ unsigned shared_address(const void* at) {
  return static_cast<unsigned>(__cvta_generic_to_shared(at));
}

// The part of dynamic shared memory that begins at a multiple of 1024, as SWIZZLE_128B needs it.
__device__ __forceinline__ unsigned ring_base(const void* shared) { return (shared_address(shared) + 1023u) & ~1023u; }

// Shared memory of this warp, of those that multiply: `bytes` each, from `offset` on after the ring's beginning.
__device__ __forceinline__ unsigned staging(const void* shared, int offset, int bytes) {
  return ring_base(shared) + offset + (threadIdx.x / 32 - 4) * bytes;
}

__device__ __forceinline__ void barrier_init(unsigned barrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

__device__ __forceinline__ void barrier_expect(unsigned barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

__device__ __forceinline__ void barrier_wait(unsigned barrier, unsigned parity) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "WAIT:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra.uni DONE;\nbra.uni WAIT;\nDONE:\n}"
      ::"r"(barrier), "r"(parity) : "memory");
}

__device__ __forceinline__ void barrier_arrive(unsigned barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// A box of a tensor of three axes, the first one contiguous, into shared memory; what lies outside reads as zero.
__device__ __forceinline__ void copy_box(unsigned to, uint64_t map, unsigned barrier, int x, int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];"
      ::"r"(to), "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z) : "memory");
}

// The same of a tensor of four axes.
__device__ __forceinline__ void copy_box(unsigned to, uint64_t map, unsigned barrier, int x, int y, int z, int w) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], "
      "[%2];" ::"r"(to), "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w) : "memory");
}

// What wgmma calls a matrix descriptor, for SWIZZLE_128B. `leading` and `stride` are byte distances between the 1024-byte
// atoms: along the axis that is contiguous within an atom, and along the other one.
__device__ __forceinline__ uint64_t matrix(unsigned at, unsigned leading, unsigned stride) {
  return static_cast<uint64_t>((at & 0x3FFFFu) >> 4) | static_cast<uint64_t>(leading >> 4) << 16 |
         static_cast<uint64_t>(stride >> 4) << 32 | static_cast<uint64_t>(1) << 62;
}

// A ring of `Stages` slots for tiles of 64 x `Groups` rows, for as many warp groups, and `Columns` columns.
template <int Columns, int Stages, int Groups>
struct Ring {
  static constexpr int rows = 64 * Groups;
  static constexpr int left_bytes = rows * 128;
  static constexpr int right_bytes = Columns * 128;
  static constexpr int slot_bytes = left_bytes + right_bytes;

  static __device__ __forceinline__ unsigned left(unsigned base, int slot) { return base + slot * left_bytes; }
  static __device__ __forceinline__ unsigned right(unsigned base, int slot) {
    return base + Stages * left_bytes + slot * right_bytes;
  }
  static __device__ __forceinline__ unsigned full(unsigned base, int slot) {
    return base + Stages * slot_bytes + slot * 8;
  }
  static __device__ __forceinline__ unsigned empty(unsigned base, int slot) {
    return base + Stages * slot_bytes + Stages * 8 + slot * 8;
  }
};

template <typename R, int Stages, int Groups>
__device__ __forceinline__ void ring_open(const void* shared) {
  unsigned base = ring_base(shared);
  if (threadIdx.x == 0) {
    for (int slot = 0; slot < Stages; ++slot) {
      barrier_init(R::full(base, slot), 1);
      barrier_init(R::empty(base, slot), Groups);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
}

// Where tile `tile` is, in units of tiles: neighbours in time share rows of `panel` tiles, so that what they read is
// still in the second-level cache.
__device__ __forceinline__ void locate(int tile, int down, int across, int* row, int* column, int* batch) {
  constexpr int panel = 16;
  int in_batch = tile % (down * across);
  *batch = tile / (down * across);
  int first = in_batch / (panel * across) * panel;
  int height = min(panel, down - first);
  int in_panel = in_batch % (panel * across);
  *row = first + in_panel % height;
  *column = in_panel / height;
}

// A left factor that is a stack of matrices: tile `row` of matrix `batch`.
template <typename R, int Units>
struct Rows {
  static constexpr int bytes = R::left_bytes;
  int left_batched, right_batched;

  __device__ __forceinline__ void copy(unsigned to, uint64_t map, unsigned full, int step, int row, int batch) const {
    copy_box(to, map, full, step * Units, row * R::rows, batch * left_batched);
  }
  __device__ __forceinline__ int depth(int step) const { return step * Units; }
};

// A left factor whose rows are pixels and whose depth is the window around them: (window row, window column, channels).
// A tile is a box of images x rows x columns of pixels; what of its windows lies in the padding reads as zero.
template <typename R, int Units, int Channels, int KernelW, int StrideH, int StrideW, int DilationH, int DilationW,
          int BoxN, int BoxH, int BoxW>
struct Windows {
  static constexpr int bytes = BoxN * BoxH * BoxW * 128;
  static constexpr int steps = (Channels + Units - 1) / Units;
  int before_h, before_w, tiles_h, tiles_w;

  __device__ __forceinline__ void copy(unsigned to, uint64_t map, unsigned full, int step, int row, int) const {
    int at = step / steps;
    int w = row % tiles_w * BoxW * StrideW + at % KernelW * DilationW - before_w;
    int h = row / tiles_w % tiles_h * BoxH * StrideH + at / KernelW * DilationH - before_h;
    copy_box(to, map, full, step % steps * Units, w, h, row / tiles_w / tiles_h * BoxN);
  }
  __device__ __forceinline__ int depth(int step) const { return step / steps * Channels + step % steps * Units; }
  static constexpr int right_batched = 0;
};

// Fill the ring for every tile of this block; one thread. The right factor is stored [depth][column] if ColumnsInner, else
// [column][depth].
template <typename R, typename Left, int Columns, int Stages, bool ColumnsInner, int Units, typename... Places>
__device__ __forceinline__ void fill_ring(const void* shared, uint64_t left_map, uint64_t right_map, int down,
                                          int across, int batches, int steps, Places... places) {
  unsigned base = ring_base(shared);
  Left left{places...};
  int slot = 0;
  unsigned parity = 1;
  for (int tile = blockIdx.x; tile < down * across * batches; tile += gridDim.x) {
    int row, column, batch;
    locate(tile, down, across, &row, &column, &batch);
    int z = batch * left.right_batched;
    for (int step = 0; step < steps; ++step) {
      barrier_wait(R::empty(base, slot), parity);
      unsigned full = R::full(base, slot);
      barrier_expect(full, Left::bytes + R::right_bytes);
      left.copy(R::left(base, slot), left_map, full, step, row, batch);
      int depth = left.depth(step);
      if constexpr (ColumnsInner) {
        // Boxes of 128 bytes of columns by as many steps of depth as there are units in 128 bytes.
#pragma unroll
        for (int i = 0; i < Columns / Units; ++i) {
          unsigned to = R::right(base, slot) + i * Units * 128;
          copy_box(to, right_map, full, column * Columns + i * Units, depth, z);
        }
      } else {
        copy_box(R::right(base, slot), right_map, full, depth, column * Columns, z);
      }
      if (++slot == Stages) slot = 0, parity ^= 1;
    }
  }
}

template <int Count>
__device__ __forceinline__ void pin(float* sums) {
#pragma unroll
  for (int i = 0; i < Count; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

// This warp group has no more use for a slot.
__device__ __forceinline__ void release(unsigned empty) {
  if (threadIdx.x % 128 == 0) barrier_arrive(empty);
}

// One tile of one warp group: sums of `steps` slots. `at` is the ring's slot and parity, kept from tile to tile.
template <typename R, typename Multiply, int Columns, int Stages, bool ColumnsInner>
__device__ __forceinline__ void multiply_ring(float* sums, const void* shared, int* at, int steps) {
  unsigned base = ring_base(shared);
  int group = threadIdx.x / 128 - 1;
  int slot = at[0], parity = at[1];
  unsigned last = 0;
  for (int step = 0; step < steps; ++step) {
    barrier_wait(R::full(base, slot), parity);
    unsigned a = R::left(base, slot) + group * 64 * 128;
    unsigned b = R::right(base, slot);
    pin<Columns / 2>(sums);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      // 32 bytes of depth a time: further along the row, or as many rows further down.
      uint64_t right = ColumnsInner ? matrix(b + k * 2048, 8192, 1024) : matrix(b + k * 32, 16, 1024);
      Multiply::run(sums, matrix(a + k * 32, 16, 1024), right, step + k > 0);
    }
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    pin<Columns / 2>(sums);
    asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
    if (step > 0) release(last);
    last = R::empty(base, slot);
    if (++slot == Stages) slot = 0, parity ^= 1;
  }
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  pin<Columns / 2>(sums);
  release(last);
  at[0] = slot, at[1] = parity;
}

// Registers move from the warp group that only copies to those that multiply.
template <int Count>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Count));
}

template <int Count>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Count));
}

}  // namespace dscc
#endif
