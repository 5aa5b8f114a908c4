// Products on the tensor cores of Ampere and later (mma.sync): tiles go to shared memory asynchronously (cp.async),
// several steps ahead, and from there to registers a matrix at a time (ldmatrix).
//
// A row of a tile is 128 bytes; 16-byte unit u of row r is found at u ^ (r % 8), so that neither copies nor ldmatrix meet
// in one bank.
#ifndef DSCC_TENSOR
#define DSCC_TENSOR

namespace dscc {

// Lines of a matrix whose contiguous axis is the one that is summed over. A thread copies unit `unit` of some lines.
template <typename E>
struct Lines {
  const char* data;
  int depth, count;

  __device__ __forceinline__ Lines(const void* data, int depth, int count)
      : data(static_cast<const char*>(data)), depth(depth), count(count) {}

  struct Line {
    const char* start;
    bool valid;
  };
  __device__ __forceinline__ Line line(int number) const {
    bool valid = number < count;
    return {data + static_cast<long long>(valid ? number : 0) * depth * E::bytes, valid};
  }
  __device__ __forceinline__ void copy(unsigned to, const Line& line, int step, int unit) const {
    int at = step * 128 + unit * 16;
    bool valid = line.valid && at < depth * E::bytes;
    copy16(to, line.start + (valid ? at : 0), valid);
  }
};

// The windows of a convolution over channels-last data, a line for every pixel of the result.
template <typename E, int Channels, int KernelW, int StrideH, int StrideW, int DilationH, int DilationW, int BeforeH,
          int BeforeW>
struct Pixels {
  static constexpr int steps = (Channels * E::bytes + 127) / 128;
  const char* data;
  int tall, wide, out_h, out_w, count;

  __device__ __forceinline__ Pixels(const void* data, int tall, int wide, int out_h, int out_w, int count)
      : data(static_cast<const char*>(data)), tall(tall), wide(wide), out_h(out_h), out_w(out_w), count(count) {}

  struct Line {
    const char* image;
    int h, w;
  };
  __device__ __forceinline__ Line line(int number) const {
    if (number >= count) return {data, -(1 << 28), 0};
    int image = number / (out_h * out_w), within = number % (out_h * out_w);
    const char* start = data + static_cast<long long>(image) * tall * wide * Channels * E::bytes;
    return {start, within / out_w * StrideH - BeforeH, within % out_w * StrideW - BeforeW};
  }
  __device__ __forceinline__ void copy(unsigned to, const Line& line, int step, int unit) const {
    int at = step / steps, channel = step % steps * 128 + unit * 16;
    int h = line.h + at / KernelW * DilationH, w = line.w + at % KernelW * DilationW;
    bool valid = h >= 0 && h < tall && w >= 0 && w < wide && channel < Channels * E::bytes;
    long long offset = (static_cast<long long>(h) * wide + w) * (Channels * E::bytes) + channel;
    copy16(to, line.image + (valid ? offset : 0), valid);
  }
};

// The weights beside such windows: lines of runs of channels, `pitch` bytes from one line to the next.
template <typename E, int Channels>
struct Filters {
  static constexpr int steps = (Channels * E::bytes + 127) / 128;
  const char* data;
  int pitch, count;

  __device__ __forceinline__ Filters(const void* data, int pitch, int count)
      : data(static_cast<const char*>(data)), pitch(pitch), count(count) {}

  struct Line {
    const char* start;
    bool valid;
  };
  __device__ __forceinline__ Line line(int number) const {
    bool valid = number < count;
    return {data + static_cast<long long>(valid ? number : 0) * pitch, valid};
  }
  __device__ __forceinline__ void copy(unsigned to, const Line& line, int step, int unit) const {
    int channel = step % steps * 128 + unit * 16;
    bool valid = line.valid && channel < Channels * E::bytes;
    copy16(to, line.start + (valid ? step / steps * (Channels * E::bytes) + channel : 0), valid);
  }
};

// The same windows where 16 bytes do not divide a pixel's channels, as in images of three: an element at a time.
template <typename E, int Channels, int KernelH, int KernelW, int StrideH, int StrideW, int DilationH, int DilationW,
          int BeforeH, int BeforeW>
struct LoosePixels : Pixels<E, Channels, KernelW, StrideH, StrideW, DilationH, DilationW, BeforeH, BeforeW> {
  using Base = Pixels<E, Channels, KernelW, StrideH, StrideW, DilationH, DilationW, BeforeH, BeforeW>;
  static constexpr int depth = KernelH * KernelW * Channels;
  static constexpr int steps = (depth + E::units - 1) / E::units;
  using Base::Base;

  __device__ __forceinline__ void copy(unsigned to, const typename Base::Line& line, int step, int unit) const {
    unsigned packed[4];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      int at = step * 64 + unit * 8 + i, tap = at / Channels;
      int h = line.h + tap / KernelW * DilationH, w = line.w + tap % KernelW * DilationW;
      bool valid = at < depth && h >= 0 && h < this->tall && w >= 0 && w < this->wide;
      long long offset = (static_cast<long long>(h) * this->wide + w) * Channels + at % Channels;
      unsigned value = valid ? reinterpret_cast<const unsigned short*>(line.image)[offset] : 0;
      packed[i / 2] = i % 2 ? packed[i / 2] | value << 16 : value;
    }
    store16(to, packed);
  }
};

// Lines of any depth and alignment, an element at a time.
template <typename E>
struct LooseLines : Lines<E> {
  using Lines<E>::Lines;

  __device__ __forceinline__ void copy(unsigned to, const typename Lines<E>::Line& line, int step, int unit) const {
    unsigned packed[4];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      int at = step * 64 + unit * 8 + i;
      unsigned value = line.valid && at < this->depth ? reinterpret_cast<const unsigned short*>(line.start)[at] : 0;
      packed[i / 2] = i % 2 ? packed[i / 2] | value << 16 : value;
    }
    store16(to, packed);
  }
};

// A tile of `Rows` lines in shared memory, filled by all threads of the block.
template <typename Source, int Rows, int Threads>
struct LineTile {
  static constexpr int bytes = Rows * 128;
  static constexpr int each = Rows * 8 / Threads;
  Source source;
  typename Source::Line lines[each];

  __device__ __forceinline__ LineTile(Source source, int first) : source(source) {
#pragma unroll
    for (int i = 0; i < each; ++i) lines[i] = source.line(first + i * (Threads / 8) + threadIdx.x / 8);
  }
  __device__ __forceinline__ void copy(unsigned tile, int step) const {
    int unit = threadIdx.x % 8;
#pragma unroll
    for (int i = 0; i < each; ++i) {
      int row = i * (Threads / 8) + threadIdx.x / 8;
      source.copy(tile + row * 128 + (unit ^ row % 8) * 16, lines[i], step, unit);
    }
  }
  // Two 8-column matrices, 32 bytes deep, of columns from `first` on.
  static __device__ __forceinline__ void load(unsigned* to, unsigned tile, int first, int k) {
    int lane = threadIdx.x % 32;
    int row = first + lane % 8 + lane / 16 * 8, unit = k * 2 + lane / 8 % 2;
    load_matrices(to, tile + row * 128 + (unit ^ row % 8) * 16);
  }
};

// A tile of a right factor that is stored [depth][column], of 2-byte elements: 64 rows of depth, in blocks of 64 columns.
template <typename E, int Columns, int Threads>
struct ColumnTile {
  static constexpr int bytes = Columns * 128;
  static constexpr int each = Columns * 8 / Threads;
  const char* data;
  int columns, depth, first;

  __device__ __forceinline__ ColumnTile(const void* data, int columns, int depth, int first)
      : data(static_cast<const char*>(data)), columns(columns), depth(depth), first(first) {}

  __device__ __forceinline__ void copy(unsigned tile, int step) const {
#pragma unroll
    for (int i = 0; i < each; ++i) {
      int at = i * Threads + threadIdx.x;
      int unit = at % 8, row = at / 8 % 64, block = at / 512;
      int column = first + block * 64 + unit * 8, deep = step * 64 + row;
      bool valid = column < columns && deep < depth;
      const char* from = data + (valid ? (static_cast<long long>(deep) * columns + column) * E::bytes : 0);
      copy16(tile + block * 8192 + row * 128 + (unit ^ row % 8) * 16, from, valid);
    }
  }
  static __device__ __forceinline__ void load(unsigned* to, unsigned tile, int column, int k) {
    int lane = threadIdx.x % 32;
    int row = k * 16 + lane % 16, unit = column % 64 / 8 + lane / 16;
    load_transposed(to, tile + column / 64 * 8192 + row * 128 + (unit ^ row % 8) * 16);
  }
};

// Whether the elements of every row of the left factor are summed as well.
template <typename E>
constexpr bool sums_rows = false;

// Sums of one tile: [TilesM][TilesN][4] of this thread. Each warp has TilesM x 16 rows and TilesN x 8 columns. Sums of
// rows come behind, [TilesM][4]: what a matrix of ones gives.
template <typename E, int TilesM, int TilesN, int WarpsN, int Stages, typename Sum, typename Left, typename Right>
__device__ __forceinline__ void multiply_tiles(Sum* sums, const void* shared, const Left& left, const Right& right,
                                               int steps) {
  unsigned ring = shared_at(shared);
  constexpr int slot_bytes = Left::bytes + Right::bytes;
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int top = warp / WarpsN * (TilesM * 16), edge = warp % WarpsN * (TilesN * 8);
#pragma unroll
  for (int i = 0; i < TilesM * (TilesN + sums_rows<E>) * 4; ++i) sums[i] = 0;
#pragma unroll
  for (int step = 0; step < Stages - 1; ++step) {
    if (step < steps) {
      left.copy(ring + step * slot_bytes, step);
      right.copy(ring + step * slot_bytes + Left::bytes, step);
    }
    commit_copies();
  }
  int slot = 0;
  for (int step = 0; step < steps; ++step) {
    wait_copies<Stages - 2>();
    __syncthreads();
    int next = step + Stages - 1, filled = slot == 0 ? Stages - 1 : slot - 1;
    if (next < steps) {
      left.copy(ring + filled * slot_bytes, next);
      right.copy(ring + filled * slot_bytes + Left::bytes, next);
    }
    commit_copies();
    unsigned a_tile = ring + slot * slot_bytes, b_tile = a_tile + Left::bytes;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      unsigned a[TilesM][4], b[TilesN / 2][4];
#pragma unroll
      for (int i = 0; i < TilesM; ++i) {
        int row = top + i * 16 + lane % 16, unit = k * 2 + lane / 16;
        load_matrices(a[i], a_tile + row * 128 + (unit ^ row % 8) * 16);
        if constexpr (sums_rows<E>) {
          const unsigned ones[] = {0x01010101u, 0x01010101u};
          E::multiply(sums + (TilesM * TilesN + i) * 4, a[i], ones);
        }
      }
#pragma unroll
      for (int j = 0; j < TilesN / 2; ++j) Right::load(b[j], b_tile, edge + j * 16, k);
#pragma unroll
      for (int i = 0; i < TilesM; ++i) {
#pragma unroll
        for (int j = 0; j < TilesN; ++j) E::multiply(sums + (i * TilesN + j) * 4, a[i], b[j / 2] + j % 2 * 2);
      }
    }
    if (++slot == Stages) slot = 0;
  }
  wait_copies<0>();
  __syncthreads();
}

// Tile (row, column) of left (rows x depth) times right (depth x columns, or columns x depth).
template <typename E, int TilesM, int TilesN, int WarpsM, int WarpsN, int Stages, bool ColumnsInner, typename Sum>
__device__ __forceinline__ void multiply_matrices(Sum* sums, const void* shared, const void* left, const void* right,
                                                  int row, int column, int rows, int columns, int depth) {
  constexpr int threads = WarpsM * WarpsN * 32, tall = WarpsM * TilesM * 16, wide = WarpsN * TilesN * 8;
  LineTile<Lines<E>, tall, threads> a(Lines<E>(left, depth, rows), row * tall);
  int steps = (depth + E::units - 1) / E::units;
  if constexpr (ColumnsInner) {
    ColumnTile<E, wide, threads> b(right, columns, depth, column * wide);
    multiply_tiles<E, TilesM, TilesN, WarpsN, Stages>(sums, shared, a, b, steps);
  } else {
    LineTile<Lines<E>, wide, threads> b(Lines<E>(right, depth, columns), column * wide);
    multiply_tiles<E, TilesM, TilesN, WarpsN, Stages>(sums, shared, a, b, steps);
  }
}

// Tile (row, column) of a convolution: rows are pixels of the result, columns are filters.
template <typename E, int TilesM, int TilesN, int WarpsM, int WarpsN, int Stages, int Channels, int KernelH,
          int KernelW, int StrideH, int StrideW, int DilationH, int DilationW, int BeforeH, int BeforeW, typename Sum>
__device__ __forceinline__ void multiply_windows(Sum* sums, const void* shared, const void* data, const void* filters,
                                                 int row, int column, int rows, int columns, int tall, int wide,
                                                 int out_h, int out_w) {
  constexpr int threads = WarpsM * WarpsN * 32, high = WarpsM * TilesM * 16, broad = WarpsN * TilesN * 8;
  if constexpr (Channels * E::bytes % 16 == 0) {
    using Left = Pixels<E, Channels, KernelW, StrideH, StrideW, DilationH, DilationW, BeforeH, BeforeW>;
    LineTile<Left, high, threads> a(Left(data, tall, wide, out_h, out_w, rows), row * high);
    constexpr int pitch = KernelH * KernelW * Channels * E::bytes;
    LineTile<Filters<E, Channels>, broad, threads> b(Filters<E, Channels>(filters, pitch, columns), column * broad);
    multiply_tiles<E, TilesM, TilesN, WarpsN, Stages>(sums, shared, a, b, KernelH * KernelW * Left::steps);
  } else {
    using Left = LoosePixels<E, Channels, KernelH, KernelW, StrideH, StrideW, DilationH, DilationW, BeforeH, BeforeW>;
    LineTile<Left, high, threads> a(Left(data, tall, wide, out_h, out_w, rows), row * high);
    LineTile<LooseLines<E>, broad, threads> b(LooseLines<E>(filters, Left::depth, columns), column * broad);
    multiply_tiles<E, TilesM, TilesN, WarpsN, Stages>(sums, shared, a, b, Left::steps);
  }
}

}  // namespace dscc
#endif
