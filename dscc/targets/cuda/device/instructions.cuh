// Instructions of Ampere and later that products on the tensor cores are made of, and the elements that these take.
#ifndef DSCC_INSTRUCTIONS
#define DSCC_INSTRUCTIONS

namespace dscc {

__device__ __forceinline__ unsigned shared_at(const void* at) {
  return static_cast<unsigned>(__cvta_generic_to_shared(at));
}

// Shared memory of this warp, `bytes` each.
__device__ __forceinline__ unsigned warp_part(const void* shared, int bytes) {
  return shared_at(shared) + threadIdx.x / 32 * bytes;
}

// 16 bytes to shared memory, or zeros there where `valid` is false.
__device__ __forceinline__ void copy16(unsigned to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0) : "memory");
}

// The same with 4 bytes.
__device__ __forceinline__ void copy4(unsigned to, const void* from, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(valid ? 4 : 0) : "memory");
}

__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int Pending>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

__device__ __forceinline__ void load_matrices(unsigned* to, unsigned at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at));
}

__device__ __forceinline__ void load_transposed(unsigned* to, unsigned at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at));
}

// d (4 numbers) plus the product of fragments a (4 registers) and b (2); `kind` is the constraint of the sums.
#define DSCC_MMA(instruction, kind, d, a, b)                                                                  \
  asm volatile("mma.sync.aligned." instruction " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "              \
               "{%0, %1, %2, %3};" : kind(d[0]), kind(d[1]), kind(d[2]), kind(d[3])                           \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

// Elements: how many a 128-byte row has, and the product of a 16-row and an 8-column matrix, 32 bytes deep.
struct Float16 {
  static constexpr int units = 64;
  static constexpr int bytes = 2;
  static __device__ __forceinline__ void multiply(float* d, const unsigned* a, const unsigned* b) {
    DSCC_MMA("m16n8k16.row.col.f32.f16.f16.f32", "+f", d, a, b);
  }
  static __device__ __forceinline__ unsigned pack(float low, float high) {
    unsigned both;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
  }
  static __device__ __forceinline__ float widen(unsigned short bits) {
    float out;
    asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(bits));
    return out;
  }
};

struct Bfloat16 {
  static constexpr int units = 64;
  static constexpr int bytes = 2;
  static __device__ __forceinline__ void multiply(float* d, const unsigned* a, const unsigned* b) {
    DSCC_MMA("m16n8k16.row.col.f32.bf16.bf16.f32", "+f", d, a, b);
  }
  static __device__ __forceinline__ unsigned pack(float low, float high) {
    unsigned both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
  }
  static __device__ __forceinline__ float widen(unsigned short bits) {
    return __uint_as_float(static_cast<unsigned>(bits) << 16);
  }
};

struct Tfloat32 {
  static constexpr int units = 32;
  static constexpr int bytes = 4;
  static __device__ __forceinline__ unsigned rounded(unsigned value) {
    unsigned out;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(out) : "f"(__uint_as_float(value)));
    return out;
  }
  static __device__ __forceinline__ void multiply(float* d, const unsigned* a, const unsigned* b) {
    unsigned left[] = {rounded(a[0]), rounded(a[1]), rounded(a[2]), rounded(a[3])};
    unsigned right[] = {rounded(b[0]), rounded(b[1])};
    DSCC_MMA("m16n8k8.row.col.f32.tf32.tf32.f32", "+f", d, left, right);
  }
};

// Bytes with and without signs, which are summed in integers.
template <bool LeftSigned, bool RightSigned>
struct Bytes {
  static constexpr int units = 128;
  static constexpr int bytes = 1;
  static __device__ __forceinline__ void multiply(int* d, const unsigned* a, const unsigned* b) {
    if constexpr (LeftSigned && RightSigned) DSCC_MMA("m16n8k32.row.col.s32.s8.s8.s32", "+r", d, a, b);
    if constexpr (LeftSigned && !RightSigned) DSCC_MMA("m16n8k32.row.col.s32.s8.u8.s32", "+r", d, a, b);
    if constexpr (!LeftSigned && RightSigned) DSCC_MMA("m16n8k32.row.col.s32.u8.s8.s32", "+r", d, a, b);
    if constexpr (!LeftSigned && !RightSigned) DSCC_MMA("m16n8k32.row.col.s32.u8.u8.s32", "+r", d, a, b);
  }
};

#undef DSCC_MMA

}  // namespace dscc
#endif
