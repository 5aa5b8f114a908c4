// Store what the tensor cores leave in registers, a few elements of many rows, as whole runs of every row.
#ifndef DSCC_SPREAD
#define DSCC_SPREAD

namespace dscc {

// A warp's 16 rows of Groups x 8 halves or bytes. Thread t holds rows t / 4 and t / 4 + 8, columns 2 (t % 4) and the next
// of every 8: `held` is [group][row]. `start` is where in `out` the thread's two rows begin, -1 for rows that there are
// not; `columns` are left from there on. `staging` is shared memory of this warp, for 16 rows and 16 bytes more each.
template <int Groups, typename T>
__device__ __forceinline__ void spread(unsigned staging, const T* held, const long long* start, T* out, int columns) {
  constexpr int size = sizeof(T), pitch = Groups * 8 * size + 16;
  int lane = threadIdx.x % 32;
#pragma unroll
  for (int g = 0; g < Groups; ++g) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      unsigned to = staging + (lane / 4 + half * 8) * pitch + g * 8 * size + lane % 4 * 2 * size;
      if constexpr (size == 2) {
        store4(to, reinterpret_cast<const unsigned*>(held)[g * 2 + half]);
      } else {
        store2(to, reinterpret_cast<const unsigned short*>(held)[g * 2 + half]);
      }
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
    bool valid = begin >= 0 && unit * 8 < columns;
    unsigned from = staging + row * pitch + unit * 8 * size;
    if constexpr (size == 2) {
      move16(out + begin + unit * 8, from, valid);
    } else {
      move8(out + begin + unit * 8, from, valid);
    }
  }
  __syncwarp();
}

}  // namespace dscc
#endif
