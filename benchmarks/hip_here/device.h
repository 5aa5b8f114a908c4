// What a kernel sees of a device, where it is compiled for the host: hip.c runs its threads. Matrix instructions are as
// AMD's manuals define them (CDNA3, RDNA3 and RDNA4 "Instruction Set Architecture", sections on matrix arithmetic), and
// written without regard to what dscc/targets/rocm thinks of them.

extern __global uint dscc_local[3], dscc_group[3], dscc_thread;
void dscc_meet_block(void);
__global float (*dscc_given(uint lanes, const float* first, const float* second, uint n))[64][16];

static ulong get_local_id(uint axis) { return dscc_local[axis]; }
static ulong get_group_id(uint axis) { return dscc_group[axis]; }
static void barrier(int memory) { dscc_meet_block(); }

#define DSCC_INSTRUCTION static __attribute__((overloadable, noinline))

// What clang calls where the processor has no instruction for it.
__bf16 __truncsfbf2(float x) {
  uint bits = as_uint(x);
  return as_bfloat((ushort)(x != x ? bits >> 16 | 64 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16));
}

#define DSCC_WIDE(T, N) \
  DSCC_FUNCTION void dscc_widened(T##N x, float* to) { for (int i = 0; i < N; ++i) to[i] = (float)x[i]; }
DSCC_WIDE(half, 4) DSCC_WIDE(half, 8) DSCC_WIDE(half, 16) DSCC_WIDE(bfloat, 4) DSCC_WIDE(bfloat, 8) DSCC_WIDE(bfloat, 16)

#if DSCC_WAVE == 64
// V_MFMA_F32_16X16X16: lane l has A[l % 16][4 * (l / 16) + j] and B[4 * (l / 16) + j][l % 16], and of the result
// D[4 * (l / 16) + r][l % 16].
#define DSCC_MFMA(T)                                                                       \
  DSCC_INSTRUCTION float4 dscc_multiply(T left, T right, float4 sums) {                    \
    float a[4], b[4];                                                                      \
    dscc_widened(left, a), dscc_widened(right, b);                                         \
    __global float(*given)[64][16] = dscc_given(64, a, b, 4);                              \
    uint lane = dscc_thread % 64;                                                            \
    for (int r = 0; r < 4; ++r)                                                            \
      for (int k = 0; k < 16; ++k)                                                         \
        sums[r] += given[0][lane / 16 * 4 + r + k / 4 * 16][k % 4] * given[1][lane % 16 + k / 4 * 16][k % 4]; \
    return sums;                                                                           \
  }
DSCC_MFMA(half4) DSCC_MFMA(bfloat4)

// V_MFMA_F32_16X16X4_F32: A[l % 16][l / 16], B[l / 16][l % 16].
DSCC_INSTRUCTION float4 dscc_multiply(float left, float right, float4 sums) {
  __global float(*given)[64][16] = dscc_given(64, &left, &right, 1);
  uint lane = dscc_thread % 64;
  for (int r = 0; r < 4; ++r)
    for (int k = 0; k < 4; ++k) sums[r] += given[0][lane / 16 * 4 + r + k * 16][0] * given[1][lane % 16 + k * 16][0];
  return sums;
}
#elif DSCC_RDNA == 4
// V_WMMA_F32_16X16X16: lane l has A[l % 16][8 * (l / 16) + j] and B[8 * (l / 16) + j][l % 16], D[8 * (l / 16) + r][l % 16].
#define DSCC_WMMA(T)                                                                       \
  DSCC_INSTRUCTION float8 dscc_multiply(T left, T right, float8 sums) {                    \
    float a[8], b[8];                                                                      \
    dscc_widened(left, a), dscc_widened(right, b);                                         \
    __global float(*given)[64][16] = dscc_given(32, a, b, 8);                              \
    uint lane = dscc_thread % 32;                                                            \
    for (int r = 0; r < 8; ++r)                                                            \
      for (int k = 0; k < 16; ++k)                                                         \
        sums[r] += given[0][lane / 16 * 8 + r + k / 8 * 16][k % 8] * given[1][lane % 16 + k / 8 * 16][k % 8]; \
    return sums;                                                                           \
  }
DSCC_WMMA(half8) DSCC_WMMA(bfloat8)
#else
// V_WMMA_F32_16X16X16: lane l has A[l % 16][j] and B[j][l % 16], both halves of a wavefront the same, and of the result
// D[2 * r + l / 16][l % 16].
#define DSCC_WMMA(T)                                                                       \
  DSCC_INSTRUCTION float8 dscc_multiply(T left, T right, float8 sums) {                    \
    float a[16], b[16];                                                                    \
    dscc_widened(left, a), dscc_widened(right, b);                                         \
    __global float(*given)[64][16] = dscc_given(32, a, b, 16);                             \
    uint lane = dscc_thread % 32;                                                            \
    for (int r = 0; r < 8; ++r)                                                            \
      for (int k = 0; k < 16; ++k) sums[r] += given[0][2 * r + lane / 16][k] * given[1][lane % 16][k]; \
    return sums;                                                                           \
  }
DSCC_WMMA(half16) DSCC_WMMA(bfloat16)
#endif

DSCC_FUNCTION int dscc_lane() { return dscc_thread % DSCC_WAVE; }

// The value of the lane whose number differs in the bits of `mask`.
DSCC_INSTRUCTION float dscc_across(float value, int mask) {
  return dscc_given(DSCC_WAVE, &value, &value, 1)[0][dscc_lane() ^ mask][0];
}

#include "lanes.h"
