// What a kernel in CUDA C++ sees of a device, where it is compiled for the host: benchmarks/hip_here/hip.c runs its
// threads. In place of instructions.cuh and memory.cuh of dscc/targets/cuda/device it has functions that do what NVIDIA's
// manual says of the instructions (PTX ISA: mma.m16n8k32, mma.m16n8k8, ldmatrix, cp.async), written without regard to
// what dscc thinks of them. Asynchronous copies are done no sooner than they are waited for.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

extern "C" {
extern unsigned dscc_local[3], dscc_group[3], dscc_thread;
void dscc_meet_block(void);
float (*dscc_given(unsigned lanes, const float* first, const float* second, unsigned n))[64][16];
}

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define __align__(n) alignas(n)
#define int64_t long long  // as NVRTC has it
#define uint64_t unsigned long long
#define uint unsigned int
#define uchar unsigned char
#define ushort unsigned short

struct dscc_place {
  const unsigned* at;
  struct Axis {
    const unsigned& value;
    operator unsigned() const { return value; }
  } x{at[0]}, y{at[1]}, z{at[2]};
};
static const dscc_place threadIdx{dscc_local}, blockIdx{dscc_group};

#define CUDART_INF_F INFINITY
#define CUDART_NAN_F NAN

static void __syncthreads() { dscc_meet_block(); }

template <typename T>
static T min(T a, T b) { return b < a ? b : a; }
template <typename T>
static T max(T a, T b) { return a < b ? b : a; }

struct float2 { float x, y; };
struct int2 { int x, y; };
static float2 make_float2(float x, float y) { return {x, y}; }
static int2 make_int2(int x, int y) { return {x, y}; }

// What the lane has that `lane` names.
static long long __shfl_sync(unsigned, long long value, int lane) {
  float words[2];
  memcpy(words, &value, 8);
  memcpy(&value, dscc_given(32, words, words, 2)[0][lane], 8);
  return value;
}
static void __syncwarp() { __shfl_sync(0, 0, 0); }

#define DSCC_MEMORY
#define DSCC_INSTRUCTIONS
namespace dscc {

constexpr unsigned SHARED_BYTES = 1 << 18;

// Addresses of shared memory are 32 bits: those of a kernel's static arrays, by their distance from a point in the image.
static char base;
static unsigned shared_at(const void* at) { return static_cast<unsigned>(static_cast<const char*>(at) - &base); }
static char* host_at(unsigned at) { return &base + static_cast<int>(at); }

static unsigned warp_part(const void* shared, int bytes) { return shared_at(shared) + threadIdx.x / 32 * bytes; }

struct Copy {
  unsigned to;
  const void* from;
  int size;  // what is copied; zeros follow
  int bytes;
};
static std::vector<std::vector<Copy>> copies[1024];  // groups of every thread, the last one is open

static void add_copy(unsigned to, const void* from, bool valid, int bytes) {
  auto& groups = copies[dscc_thread];
  if (groups.empty()) groups.emplace_back();
  groups.back().push_back({to, from, valid ? bytes : 0, bytes});
}
static void copy16(unsigned to, const void* from, bool valid) { add_copy(to, from, valid, 16); }
static void copy4(unsigned to, const void* from, bool valid) { add_copy(to, from, valid, 4); }
static void store16(unsigned to, const unsigned* words) { memcpy(host_at(to), words, 16); }
static void store4(unsigned to, unsigned word) { memcpy(host_at(to), &word, 4); }
static void store2(unsigned to, unsigned short half) { memcpy(host_at(to), &half, 2); }
static void move16(void* to, unsigned from, bool valid) { if (valid) memcpy(to, host_at(from), 16); }
static void move8(void* to, unsigned from, bool valid) { if (valid) memcpy(to, host_at(from), 8); }
static void commit_copies() { copies[dscc_thread].emplace_back(); }

template <int Pending>
static void wait_copies() {
  auto& groups = copies[dscc_thread];
  while (groups.size() > Pending + 1) {
    for (const Copy& copy : groups.front()) {
      memcpy(host_at(copy.to), copy.from, copy.size);
      memset(host_at(copy.to) + copy.size, 0, copy.bytes - copy.size);
    }
    groups.erase(groups.begin());
  }
}

struct Lanes {
  unsigned lane = dscc_thread % 32;
  float (*given)[64][16];
  Lanes(const unsigned* first, unsigned count, const unsigned* second = nullptr, unsigned others = 0) {
    float a[16] = {}, b[16] = {};
    memcpy(a, first, count * 4);
    if (second) memcpy(b, second, others * 4);
    given = dscc_given(32, a, b, count > others ? count : others);
  }
  unsigned word(int which, unsigned lane, unsigned i) const {
    unsigned value;
    memcpy(&value, &given[which][lane][i], 4);
    return value;
  }
};

// ldmatrix.x4: lanes 8 m to 8 m + 7 give the addresses of the rows of matrix m, of 16 bytes each; lane l gets of every
// matrix row l / 4, bytes 4 * (l % 4) and the next three.
static void load_matrices(unsigned* to, unsigned at) {
  Lanes lanes(&at, 1);
  for (unsigned m = 0; m < 4; ++m) {
    unsigned row = lanes.word(0, m * 8 + lanes.lane / 4, 0);
    memcpy(&to[m], host_at(row) + lanes.lane % 4 * 4, 4);
  }
}

// The same with .trans, of 2-byte elements: lane l gets column l / 4, rows 2 * (l % 4) and the next.
static void load_transposed(unsigned* to, unsigned at) {
  Lanes lanes(&at, 1);
  for (unsigned m = 0; m < 4; ++m) {
    unsigned short pair[2];
    for (unsigned i = 0; i < 2; ++i) {
      unsigned row = lanes.word(0, m * 8 + lanes.lane % 4 * 2 + i, 0);
      memcpy(&pair[i], host_at(row) + lanes.lane / 4 * 2, 2);
    }
    memcpy(&to[m], pair, 4);
  }
}

// mma.m16n8k32: of bytes. Lane l, in group g = l / 4 and at t = l % 4 of it, has in register r of A row g + 8 * (r % 2),
// columns 4 * t + 16 * (r / 2) and the next three; in register r of B column g, rows 4 * t + 16 * r and the next three;
// of the result rows g and g + 8, columns 2 * t and the next.
template <bool LeftSigned, bool RightSigned>
struct Bytes {
  static constexpr int units = 128;
  static constexpr int bytes = 1;
  template <bool Signed>
  static int byte(unsigned word, unsigned i) {
    return Signed ? static_cast<signed char>(word >> 8 * i) : static_cast<unsigned char>(word >> 8 * i);
  }
  static void multiply(int* d, const unsigned* a, const unsigned* b) {
    Lanes lanes(a, 4, b, 2);
    for (unsigned i = 0; i < 4; ++i) {
      unsigned row = lanes.lane / 4 + i / 2 * 8, column = lanes.lane % 4 * 2 + i % 2;
      for (unsigned k = 0; k < 32; ++k) {
        unsigned left = lanes.word(0, row % 8 * 4 + k % 16 / 4, row / 8 + k / 16 * 2);
        unsigned right = lanes.word(1, column * 4 + k % 16 / 4, k / 16);
        d[i] += byte<LeftSigned>(left, k % 4) * byte<RightSigned>(right, k % 4);
      }
    }
  }
};

// mma.m16n8k8 of tf32. Lane l has in register r of A row g + 8 * (r % 2), column t + 4 * (r / 2); in register r of B
// column g, row t + 4 * r.
struct Tfloat32 {
  static constexpr int units = 32;
  static constexpr int bytes = 4;
  static float rounded(unsigned word) {  // to 10 bits behind the point, halves away from zero
    word = (word + 0x1000) & 0xffffe000;
    float value;
    memcpy(&value, &word, 4);
    return value;
  }
  static void multiply(float* d, const unsigned* a, const unsigned* b) {
    Lanes lanes(a, 4, b, 2);
    for (unsigned i = 0; i < 4; ++i) {
      unsigned row = lanes.lane / 4 + i / 2 * 8, column = lanes.lane % 4 * 2 + i % 2;
      for (unsigned k = 0; k < 8; ++k) {
        unsigned left = lanes.word(0, row % 8 * 4 + k % 4, row / 8 + k / 4 * 2);
        unsigned right = lanes.word(1, column * 4 + k % 4, k / 4);
        d[i] += rounded(left) * rounded(right);
      }
    }
  }
};

}  // namespace dscc
