// Products of bytes, summed in integers. The right factor is packed: lines along the depth, filled up with zeros to 16
// bytes, and behind each 16 bytes that begin with the sum of the line.
//
// What is outside of an image is its zero point, and not zero: the sums of the weights then correct all sums alike.
#ifndef DSCC_BYTES
#define DSCC_BYTES

namespace dscc {

// Bytes whose rows are summed as well, for a zero point of the right factor.
template <bool LeftSigned, bool RightSigned>
struct SummedBytes : Bytes<LeftSigned, RightSigned> {};

template <bool LeftSigned, bool RightSigned>
constexpr bool sums_rows<SummedBytes<LeftSigned, RightSigned>> = true;

__device__ __forceinline__ int word_at(const void* at) { return *static_cast<const int*>(at); }

// Four pieces of a unit of 16 bytes, by `each(byte, word)`: a word at once, or its bytes one by one.
template <int Piece, typename Each>
__device__ __forceinline__ void in_pieces(unsigned to, const Each& each) {
  unsigned words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (Piece == 4) {
      each.word(to + i * 4, i * 4);
    } else {
      words[i] = 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) words[i] |= each.byte(i * 4 + j) << 8 * j;
    }
  }
  if constexpr (Piece != 4) store16(to, words);
}

// Lines of a matrix whose depth 16 does not divide, in pieces of 4 bytes or of one.
template <typename E, int Piece>
struct ShortLines : Lines<E> {
  using Base = Lines<E>;
  using Base::Base;

  struct Unit {
    const ShortLines& lines;
    const typename Base::Line& line;
    int first;
    __device__ __forceinline__ bool valid(int at) const { return line.valid && first + at < lines.depth; }
    __device__ __forceinline__ void word(unsigned to, int at) const {
      copy4(to, line.start + (valid(at) ? first + at : 0), valid(at));
    }
    __device__ __forceinline__ unsigned byte(int at) const {
      return valid(at) ? static_cast<unsigned char>(line.start[first + at]) : 0u;
    }
  };
  __device__ __forceinline__ void copy(unsigned to, const typename Base::Line& line, int step, int unit) const {
    in_pieces<Piece>(to, Unit{*this, line, step * 128 + unit * 16});
  }
};

// The windows of a convolution, with the zero point, four times in `outside`, for what is not in the image.
template <typename E, int Channels, int KernelW, int StrideH, int StrideW, int DilationH, int DilationW, int BeforeH,
          int BeforeW>
struct ZeroedPixels : Pixels<E, Channels, KernelW, StrideH, StrideW, DilationH, DilationW, BeforeH, BeforeW> {
  using Base = Pixels<E, Channels, KernelW, StrideH, StrideW, DilationH, DilationW, BeforeH, BeforeW>;
  unsigned outside;

  __device__ __forceinline__ ZeroedPixels(const Base& base, unsigned outside) : Base(base), outside(outside) {}

  __device__ __forceinline__ bool inside(int h, int w) const {
    return h >= 0 && h < this->tall && w >= 0 && w < this->wide;
  }
  __device__ __forceinline__ long long place(int h, int w) const {
    return (static_cast<long long>(h) * this->wide + w) * Channels;
  }
  __device__ __forceinline__ void copy(unsigned to, const typename Base::Line& line, int step, int unit) const {
    int at = step / Base::steps, channel = step % Base::steps * 128 + unit * 16;
    int h = line.h + at / KernelW * DilationH, w = line.w + at % KernelW * DilationW;
    const unsigned words[] = {outside, outside, outside, outside};
    if (channel >= Channels || inside(h, w)) {
      bool valid = channel < Channels;
      copy16(to, line.image + (valid ? place(h, w) + channel : 0), valid);
    } else {
      store16(to, words);
    }
  }
};

// The same where 16 does not divide a pixel's channels: taps one after the other, in pieces of 4 bytes or of one.
template <typename E, int Channels, int KernelH, int KernelW, int StrideH, int StrideW, int DilationH, int DilationW,
          int BeforeH, int BeforeW>
struct ShortPixels : ZeroedPixels<E, Channels, KernelW, StrideH, StrideW, DilationH, DilationW, BeforeH, BeforeW> {
  using Base = ZeroedPixels<E, Channels, KernelW, StrideH, StrideW, DilationH, DilationW, BeforeH, BeforeW>;
  static constexpr int depth = KernelH * KernelW * Channels;
  using Base::Base;

  struct Unit {
    const ShortPixels& pixels;
    const typename Base::Line& line;
    int first;
    __device__ __forceinline__ int h(int at) const { return line.h + (first + at) / Channels / KernelW * DilationH; }
    __device__ __forceinline__ int w(int at) const { return line.w + (first + at) / Channels % KernelW * DilationW; }
    __device__ __forceinline__ bool inside(int at) const { return pixels.inside(h(at), w(at)); }
    __device__ __forceinline__ const char* place(int at) const {
      return line.image + pixels.place(h(at), w(at)) + (first + at) % Channels;
    }
    __device__ __forceinline__ void word(unsigned to, int at) const {
      if (first + at >= depth || inside(at)) {
        bool valid = first + at < depth;
        copy4(to, valid ? place(at) : line.image, valid);
      } else {
        store4(to, pixels.outside);
      }
    }
    __device__ __forceinline__ unsigned byte(int at) const {
      if (first + at >= depth) return 0;
      return inside(at) ? static_cast<unsigned char>(*place(at)) : pixels.outside & 255;
    }
  };
  __device__ __forceinline__ void copy(unsigned to, const typename Base::Line& line, int step, int unit) const {
    in_pieces<Channels % 4 ? 1 : 4>(to, Unit{*this, line, step * 128 + unit * 16});
  }
};

// Tile (row, column) of left (rows x depth) times right (columns x depth). `Piece` bytes divide the depth: 16, 4 or 1.
template <typename E, int TilesM, int TilesN, int WarpsM, int WarpsN, int Stages, int Piece>
__device__ __forceinline__ void multiply_bytes(int* sums, const void* shared, const void* left, const void* right,
                                               int row, int column, int rows, int columns, int depth, int pitch) {
  constexpr int threads = WarpsM * WarpsN * 32, tall = WarpsM * TilesM * 16, wide = WarpsN * TilesN * 8;
  LineTile<Lines<E>, wide, threads> b(Lines<E>(right, pitch, columns), column * wide);
  int steps = (depth + E::units - 1) / E::units;
  if constexpr (Piece == 16) {
    LineTile<Lines<E>, tall, threads> a(Lines<E>(left, depth, rows), row * tall);
    multiply_tiles<E, TilesM, TilesN, WarpsN, Stages>(sums, shared, a, b, steps);
  } else {
    using Left = ShortLines<E, Piece>;
    LineTile<Left, tall, threads> a(Left(left, depth, rows), row * tall);
    multiply_tiles<E, TilesM, TilesN, WarpsN, Stages>(sums, shared, a, b, steps);
  }
}

// Tile (row, column) of a convolution: rows are pixels of the result, columns are filters.
template <typename E, int TilesM, int TilesN, int WarpsM, int WarpsN, int Stages, int Channels, int KernelH,
          int KernelW, int StrideH, int StrideW, int DilationH, int DilationW, int BeforeH, int BeforeW>
__device__ __forceinline__ void multiply_byte_windows(int* sums, const void* shared, const void* data,
                                                      const void* filters, int row, int column, int rows, int columns,
                                                      int tall, int wide, int out_h, int out_w, int pitch, int zero) {
  constexpr int threads = WarpsM * WarpsN * 32, high = WarpsM * TilesM * 16, broad = WarpsN * TilesN * 8;
  using Plain = Pixels<E, Channels, KernelW, StrideH, StrideW, DilationH, DilationW, BeforeH, BeforeW>;
  Plain plain(data, tall, wide, out_h, out_w, rows);
  unsigned outside = (zero & 255) * 0x01010101u;
  if constexpr (Channels % 16 == 0) {
    using Left = ZeroedPixels<E, Channels, KernelW, StrideH, StrideW, DilationH, DilationW, BeforeH, BeforeW>;
    LineTile<Left, high, threads> a(Left(plain, outside), row * high);
    LineTile<Filters<E, Channels>, broad, threads> b(Filters<E, Channels>(filters, pitch, columns), column * broad);
    multiply_tiles<E, TilesM, TilesN, WarpsN, Stages>(sums, shared, a, b, KernelH * KernelW * Left::steps);
  } else {
    using Left = ShortPixels<E, Channels, KernelH, KernelW, StrideH, StrideW, DilationH, DilationW, BeforeH, BeforeW>;
    LineTile<Left, high, threads> a(Left(plain, outside), row * high);
    LineTile<Lines<E>, broad, threads> b(Lines<E>(filters, pitch, columns), column * broad);
    multiply_tiles<E, TilesM, TilesN, WarpsN, Stages>(sums, shared, a, b, (Left::depth + 127) / 128);
  }
}

}  // namespace dscc
#endif
