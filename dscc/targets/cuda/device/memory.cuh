// Words to and from shared memory, and whole units to global memory.
#ifndef DSCC_MEMORY
#define DSCC_MEMORY

namespace dscc {

__device__ __forceinline__ void store2(unsigned to, unsigned short half) {
  asm volatile("st.shared.b16 [%0], %1;" ::"r"(to), "h"(half) : "memory");
}

__device__ __forceinline__ void store4(unsigned to, unsigned word) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(word) : "memory");
}

__device__ __forceinline__ void store16(unsigned to, const unsigned* words) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};"
               ::"r"(to), "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3]) : "memory");
}

// From shared to global memory. The compiler takes some of these addresses for multiples of 4 only, and would store word
// by word.
__device__ __forceinline__ void move8(void* to, unsigned from, bool valid) {
  unsigned words[2];
  asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(words[0]), "=r"(words[1]) : "r"(from));
  if (valid) asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(to), "r"(words[0]), "r"(words[1]) : "memory");
}

__device__ __forceinline__ void move16(void* to, unsigned from, bool valid) {
  unsigned words[4];
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3]) : "r"(from));
  if (valid) {
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};"
                 ::"l"(to), "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3]) : "memory");
  }
}

}  // namespace dscc
#endif
