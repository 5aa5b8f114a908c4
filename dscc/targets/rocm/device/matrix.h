// Products of 16 x 16 by the matrix instructions, the same name for all: sums + left x right, each as the lanes hold them
// (dscc/targets/rocm/matrix.py says how). AMD's "Matrix Instruction Calculator" and the manuals of CDNA3, RDNA3, RDNA4.

#ifndef DSCC_MATRIX_H_
#define DSCC_MATRIX_H_

#if defined(__gfx90a__) || defined(__gfx942__) || defined(__gfx950__)
DSCC_FUNCTION float4 dscc_multiply(half4 left, half4 right, float4 sums) {
  return __builtin_amdgcn_mfma_f32_16x16x16f16(left, right, sums, 0, 0, 0);
}
DSCC_FUNCTION float4 dscc_multiply(bfloat4 left, bfloat4 right, float4 sums) {
  return __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(as_short4(left), as_short4(right), sums, 0, 0, 0);
}
DSCC_FUNCTION float4 dscc_multiply(float left, float right, float4 sums) {
  return __builtin_amdgcn_mfma_f32_16x16x4f32(left, right, sums, 0, 0, 0);
}
#elif defined(__gfx1200__) || defined(__gfx1201__)
DSCC_FUNCTION float8 dscc_multiply(half8 left, half8 right, float8 sums) {
  return __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(left, right, sums);
}
DSCC_FUNCTION float8 dscc_multiply(bfloat8 left, bfloat8 right, float8 sums) {
  return __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(as_short8(left), as_short8(right), sums);
}
#elif defined(__gfx1100__) || defined(__gfx1101__) || defined(__gfx1102__) || defined(__gfx1151__)
DSCC_FUNCTION float8 dscc_multiply(half16 left, half16 right, float8 sums) {
  return __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(left, right, sums);
}
DSCC_FUNCTION float8 dscc_multiply(bfloat16 left, bfloat16 right, float8 sums) {
  return __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(as_short16(left), as_short16(right), sums);
}
#endif

// The lane of a wavefront, and the value of the lane whose number differs in the bits of `mask`.
DSCC_FUNCTION int dscc_lane() { return __builtin_amdgcn_mbcnt_hi(~0u, __builtin_amdgcn_mbcnt_lo(~0u, 0u)); }
DSCC_FUNCTION float dscc_across(float value, int mask) {
  return as_float(__builtin_amdgcn_ds_bpermute((dscc_lane() ^ mask) << 2, as_int(value)));
}

#include "lanes.h"

#endif  // DSCC_MATRIX_H_
