// As much of OpenCL C as TVM's code generator and ours write, for clang without headers or libraries: types, work-items,
// barriers, conversions, loads and stores of vectors, and the functions that LLVM has instructions or expansions for
// (OpenCL C specification 3.0, sections 6.3 to 6.15). The elementary functions that it has none for are in math.h.

#ifndef DSCC_OPENCL_H_
#define DSCC_OPENCL_H_

#pragma OPENCL EXTENSION cl_khr_fp16 : enable
#pragma OPENCL EXTENSION cl_khr_fp64 : enable

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef __bf16 bfloat;

#define DSCC_FUNCTION static __attribute__((overloadable, always_inline))
#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define CLK_LOCAL_MEM_FENCE 1

#ifdef __AMDGCN__
#define __kernel __attribute__((amdgpu_kernel, amdgpu_flat_work_group_size(1, 256)))

static __attribute__((always_inline)) ulong get_local_id(uint axis) {
  return axis == 0   ? __builtin_amdgcn_workitem_id_x()
         : axis == 1 ? __builtin_amdgcn_workitem_id_y()
                     : __builtin_amdgcn_workitem_id_z();
}

static __attribute__((always_inline)) ulong get_group_id(uint axis) {
  return axis == 0   ? __builtin_amdgcn_workgroup_id_x()
         : axis == 1 ? __builtin_amdgcn_workgroup_id_y()
                     : __builtin_amdgcn_workgroup_id_z();
}

static __attribute__((always_inline)) void barrier(int memory) {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup", "local");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup", "local");
}
#endif

// For every scalar type and every size of vectors.
#define DSCC_LANES(X, T) X(T, 2) X(T, 3) X(T, 4) X(T, 8) X(T, 16)
#define DSCC_INTEGERS(X) X(char) X(uchar) X(short) X(ushort) X(int) X(uint) X(long) X(ulong)
#define DSCC_SCALARS(X) DSCC_INTEGERS(X) X(half) X(bfloat) X(float) X(double)

#define DSCC_VECTOR(T, N) typedef T T##N __attribute__((ext_vector_type(N)));
#define DSCC_VECTORS(T) DSCC_LANES(DSCC_VECTOR, T)
DSCC_SCALARS(DSCC_VECTORS)

#define DSCC_ACCESS_IN(T, N, SPACE)                                                          \
  DSCC_FUNCTION T##N vload##N(ulong offset, SPACE const T* from) {                           \
    T##N value;                                                                              \
    _Pragma("unroll") for (int i = 0; i < N; ++i) value[i] = from[offset * N + i];           \
    return value;                                                                            \
  }                                                                                          \
  DSCC_FUNCTION void vstore##N(T##N value, ulong offset, SPACE T* to) {                      \
    _Pragma("unroll") for (int i = 0; i < N; ++i) to[offset * N + i] = value[i];             \
  }
#define DSCC_ACCESS(T, N) \
  DSCC_ACCESS_IN(T, N, __global) DSCC_ACCESS_IN(T, N, __local) DSCC_ACCESS_IN(T, N, __private)
#define DSCC_ACCESSES(T) DSCC_LANES(DSCC_ACCESS, T)
DSCC_SCALARS(DSCC_ACCESSES)

// Conversions round towards zero to integers and to nearest otherwise, as C's do.
#define convert_bool(x) ((bool)(x))
#define convert_char(x) ((char)(x))
#define convert_uchar(x) ((uchar)(x))
#define convert_short(x) ((short)(x))
#define convert_ushort(x) ((ushort)(x))
#define convert_int(x) ((int)(x))
#define convert_uint(x) ((uint)(x))
#define convert_long(x) ((long)(x))
#define convert_ulong(x) ((ulong)(x))
#define convert_half(x) ((half)(x))
#define convert_bfloat(x) ((bfloat)(x))
#define convert_float(x) ((float)(x))
#define convert_double(x) ((double)(x))
#define convert_char2(x) __builtin_convertvector((x), char2)
#define convert_char3(x) __builtin_convertvector((x), char3)
#define convert_char4(x) __builtin_convertvector((x), char4)
#define convert_char8(x) __builtin_convertvector((x), char8)
#define convert_char16(x) __builtin_convertvector((x), char16)
#define convert_uchar2(x) __builtin_convertvector((x), uchar2)
#define convert_uchar3(x) __builtin_convertvector((x), uchar3)
#define convert_uchar4(x) __builtin_convertvector((x), uchar4)
#define convert_uchar8(x) __builtin_convertvector((x), uchar8)
#define convert_uchar16(x) __builtin_convertvector((x), uchar16)
#define convert_short2(x) __builtin_convertvector((x), short2)
#define convert_short3(x) __builtin_convertvector((x), short3)
#define convert_short4(x) __builtin_convertvector((x), short4)
#define convert_short8(x) __builtin_convertvector((x), short8)
#define convert_short16(x) __builtin_convertvector((x), short16)
#define convert_ushort2(x) __builtin_convertvector((x), ushort2)
#define convert_ushort3(x) __builtin_convertvector((x), ushort3)
#define convert_ushort4(x) __builtin_convertvector((x), ushort4)
#define convert_ushort8(x) __builtin_convertvector((x), ushort8)
#define convert_ushort16(x) __builtin_convertvector((x), ushort16)
#define convert_int2(x) __builtin_convertvector((x), int2)
#define convert_int3(x) __builtin_convertvector((x), int3)
#define convert_int4(x) __builtin_convertvector((x), int4)
#define convert_int8(x) __builtin_convertvector((x), int8)
#define convert_int16(x) __builtin_convertvector((x), int16)
#define convert_uint2(x) __builtin_convertvector((x), uint2)
#define convert_uint3(x) __builtin_convertvector((x), uint3)
#define convert_uint4(x) __builtin_convertvector((x), uint4)
#define convert_uint8(x) __builtin_convertvector((x), uint8)
#define convert_uint16(x) __builtin_convertvector((x), uint16)
#define convert_long2(x) __builtin_convertvector((x), long2)
#define convert_long3(x) __builtin_convertvector((x), long3)
#define convert_long4(x) __builtin_convertvector((x), long4)
#define convert_long8(x) __builtin_convertvector((x), long8)
#define convert_long16(x) __builtin_convertvector((x), long16)
#define convert_ulong2(x) __builtin_convertvector((x), ulong2)
#define convert_ulong3(x) __builtin_convertvector((x), ulong3)
#define convert_ulong4(x) __builtin_convertvector((x), ulong4)
#define convert_ulong8(x) __builtin_convertvector((x), ulong8)
#define convert_ulong16(x) __builtin_convertvector((x), ulong16)
#define convert_half2(x) __builtin_convertvector((x), half2)
#define convert_half3(x) __builtin_convertvector((x), half3)
#define convert_half4(x) __builtin_convertvector((x), half4)
#define convert_half8(x) __builtin_convertvector((x), half8)
#define convert_half16(x) __builtin_convertvector((x), half16)
#define convert_bfloat2(x) __builtin_convertvector((x), bfloat2)
#define convert_bfloat3(x) __builtin_convertvector((x), bfloat3)
#define convert_bfloat4(x) __builtin_convertvector((x), bfloat4)
#define convert_bfloat8(x) __builtin_convertvector((x), bfloat8)
#define convert_bfloat16(x) __builtin_convertvector((x), bfloat16)
#define convert_float2(x) __builtin_convertvector((x), float2)
#define convert_float3(x) __builtin_convertvector((x), float3)
#define convert_float4(x) __builtin_convertvector((x), float4)
#define convert_float8(x) __builtin_convertvector((x), float8)
#define convert_float16(x) __builtin_convertvector((x), float16)
#define convert_double2(x) __builtin_convertvector((x), double2)
#define convert_double3(x) __builtin_convertvector((x), double3)
#define convert_double4(x) __builtin_convertvector((x), double4)
#define convert_double8(x) __builtin_convertvector((x), double8)
#define convert_double16(x) __builtin_convertvector((x), double16)

// The same bits as another type.
#define as_char(x) __builtin_astype((x), char)
#define as_char2(x) __builtin_astype((x), char2)
#define as_char3(x) __builtin_astype((x), char3)
#define as_char4(x) __builtin_astype((x), char4)
#define as_char8(x) __builtin_astype((x), char8)
#define as_char16(x) __builtin_astype((x), char16)
#define as_uchar(x) __builtin_astype((x), uchar)
#define as_uchar2(x) __builtin_astype((x), uchar2)
#define as_uchar3(x) __builtin_astype((x), uchar3)
#define as_uchar4(x) __builtin_astype((x), uchar4)
#define as_uchar8(x) __builtin_astype((x), uchar8)
#define as_uchar16(x) __builtin_astype((x), uchar16)
#define as_short(x) __builtin_astype((x), short)
#define as_short2(x) __builtin_astype((x), short2)
#define as_short3(x) __builtin_astype((x), short3)
#define as_short4(x) __builtin_astype((x), short4)
#define as_short8(x) __builtin_astype((x), short8)
#define as_short16(x) __builtin_astype((x), short16)
#define as_ushort(x) __builtin_astype((x), ushort)
#define as_ushort2(x) __builtin_astype((x), ushort2)
#define as_ushort3(x) __builtin_astype((x), ushort3)
#define as_ushort4(x) __builtin_astype((x), ushort4)
#define as_ushort8(x) __builtin_astype((x), ushort8)
#define as_ushort16(x) __builtin_astype((x), ushort16)
#define as_int(x) __builtin_astype((x), int)
#define as_int2(x) __builtin_astype((x), int2)
#define as_int3(x) __builtin_astype((x), int3)
#define as_int4(x) __builtin_astype((x), int4)
#define as_int8(x) __builtin_astype((x), int8)
#define as_int16(x) __builtin_astype((x), int16)
#define as_uint(x) __builtin_astype((x), uint)
#define as_uint2(x) __builtin_astype((x), uint2)
#define as_uint3(x) __builtin_astype((x), uint3)
#define as_uint4(x) __builtin_astype((x), uint4)
#define as_uint8(x) __builtin_astype((x), uint8)
#define as_uint16(x) __builtin_astype((x), uint16)
#define as_long(x) __builtin_astype((x), long)
#define as_long2(x) __builtin_astype((x), long2)
#define as_long3(x) __builtin_astype((x), long3)
#define as_long4(x) __builtin_astype((x), long4)
#define as_long8(x) __builtin_astype((x), long8)
#define as_long16(x) __builtin_astype((x), long16)
#define as_ulong(x) __builtin_astype((x), ulong)
#define as_ulong2(x) __builtin_astype((x), ulong2)
#define as_ulong3(x) __builtin_astype((x), ulong3)
#define as_ulong4(x) __builtin_astype((x), ulong4)
#define as_ulong8(x) __builtin_astype((x), ulong8)
#define as_ulong16(x) __builtin_astype((x), ulong16)
#define as_half(x) __builtin_astype((x), half)
#define as_half2(x) __builtin_astype((x), half2)
#define as_half3(x) __builtin_astype((x), half3)
#define as_half4(x) __builtin_astype((x), half4)
#define as_half8(x) __builtin_astype((x), half8)
#define as_half16(x) __builtin_astype((x), half16)
#define as_bfloat(x) __builtin_astype((x), bfloat)
#define as_bfloat2(x) __builtin_astype((x), bfloat2)
#define as_bfloat3(x) __builtin_astype((x), bfloat3)
#define as_bfloat4(x) __builtin_astype((x), bfloat4)
#define as_bfloat8(x) __builtin_astype((x), bfloat8)
#define as_bfloat16(x) __builtin_astype((x), bfloat16)
#define as_float(x) __builtin_astype((x), float)
#define as_float2(x) __builtin_astype((x), float2)
#define as_float3(x) __builtin_astype((x), float3)
#define as_float4(x) __builtin_astype((x), float4)
#define as_float8(x) __builtin_astype((x), float8)
#define as_float16(x) __builtin_astype((x), float16)
#define as_double(x) __builtin_astype((x), double)
#define as_double2(x) __builtin_astype((x), double2)
#define as_double3(x) __builtin_astype((x), double3)
#define as_double4(x) __builtin_astype((x), double4)
#define as_double8(x) __builtin_astype((x), double8)
#define as_double16(x) __builtin_astype((x), double16)

#define DSCC_EXTREMES(T)                                             \
  DSCC_FUNCTION T min(T a, T b) { return b < a ? b : a; }            \
  DSCC_FUNCTION T max(T a, T b) { return a < b ? b : a; }
DSCC_SCALARS(DSCC_EXTREMES)

#define DSCC_VECTOR_EXTREMES(T, N)                                                     \
  DSCC_FUNCTION T##N min(T##N a, T##N b) { return b < a ? b : a; }                     \
  DSCC_FUNCTION T##N max(T##N a, T##N b) { return a < b ? b : a; }
#define DSCC_ALL_EXTREMES(T) DSCC_LANES(DSCC_VECTOR_EXTREMES, T)
DSCC_SCALARS(DSCC_ALL_EXTREMES)

// Scalars and vectors of halves, floats, and where LLVM has them doubles.
#define exp(x) __builtin_elementwise_exp(x)
#define exp2(x) __builtin_elementwise_exp2(x)
#define log(x) __builtin_elementwise_log(x)
#define exp10(x) __builtin_elementwise_exp10(x)
#define log2(x) __builtin_elementwise_log2(x)
#define log10(x) __builtin_elementwise_log10(x)
#define sqrt(x) __builtin_elementwise_sqrt(x)
#define fabs(x) __builtin_elementwise_abs(x)
#define floor(x) __builtin_elementwise_floor(x)
#define ceil(x) __builtin_elementwise_ceil(x)
#define trunc(x) __builtin_elementwise_trunc(x)
#define rint(x) __builtin_elementwise_rint(x)
#define fma(a, b, c) __builtin_elementwise_fma(a, b, c)
#define copysign(a, b) __builtin_elementwise_copysign(a, b)
#define popcount(x) __builtin_elementwise_popcount(x)
#define select(a, b, c) ((c) ? (b) : (a))
#define isnan(x) __builtin_isnan(x)
#define isinf(x) __builtin_isinf(x)
#define isfinite(x) __builtin_isfinite(x)

DSCC_FUNCTION half fmod(half a, half b) { return (half)__builtin_fmodf(a, b); }
DSCC_FUNCTION float fmod(float a, float b) { return __builtin_fmodf(a, b); }
DSCC_FUNCTION double fmod(double a, double b) { return __builtin_fmod(a, b); }

DSCC_FUNCTION int clz(int x) { return x ? __builtin_clz(x) : 32; }
DSCC_FUNCTION int clz(long x) { return x ? __builtin_clzl(x) : 64; }

#include "math.h"

#ifdef __AMDGCN__
#include "matrix.h"
#endif

#endif  // DSCC_OPENCL_H_
