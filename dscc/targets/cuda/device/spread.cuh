// Store what the tensor cores leave in registers, a few elements of many rows, as whole runs of every row.
#ifndef DSCC_SPREAD
#define DSCC_SPREAD

namespace dscc {

// A warp's 16 rows of Groups x 8 halves. Thread t holds rows t / 4 and t / 4 + 8, columns 2 (t % 4) and the next of every
// 8: `packed` is [group][row]. `start` is where in `out` the thread's two rows begin, -1 for rows that there are not;
// `columns` are left from there on. `staging` is shared memory of this warp, for 16 rows and 16 bytes more each.
template <int Groups, typename T>
__device__ __forceinline__ void spread(unsigned staging, const T* halves, const long long* start, T* out,
                                       int columns) {
  constexpr int pitch = Groups * 16 + 16;
  const unsigned* packed = reinterpret_cast<const unsigned*>(halves);
  int lane = threadIdx.x % 32;
#pragma unroll
  for (int g = 0; g < Groups; ++g) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      unsigned to = staging + (lane / 4 + half * 8) * pitch + g * 16 + lane % 4 * 4;
      asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(packed[g * 2 + half]) : "memory");
    }
  }
  __syncwarp();
  constexpr int rows = 32 / Groups;  // at once
#pragma unroll
  for (int i = 0; i < 16 / rows; ++i) {
    int row = i * rows + lane / Groups, unit = lane % Groups;
    long long low = __shfl_sync(0xffffffffu, start[0], row % 8 * 4);
    long long high = __shfl_sync(0xffffffffu, start[1], row % 8 * 4);
    long long begin = row < 8 ? low : high;
    uint4 value;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "r"(staging + row * pitch + unit * 16));
    if (begin >= 0 && unit * 8 < columns) {
      // the compiler takes some of these addresses for multiples of 4 only, and would store four times
      asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};"
                   ::"l"(out + begin + unit * 8), "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w) : "memory");
    }
  }
  __syncwarp();
}

}  // namespace dscc
#endif
