// Attention on the tensor cores without the matrix of scores: a block's queries stay in registers, keys and values pass
// through shared memory in blocks, softmax in passing (Dao et al., FlashAttention-2, 2023).
//
// Every warp has 16 queries or 32. Scores of 16 queries and a block of keys come out of the tensor cores in just the places in which
// the next product takes its left factor, so they never leave the registers.
#ifndef DSCC_ATTENTION
#define DSCC_ATTENTION

namespace dscc {

__device__ __forceinline__ float lowest() { return __int_as_float(0xff800000); }  // minus infinity

// Rows of `Size` elements, each followed by 16 bytes that are not used: ldmatrix then meets no bank twice.
template <int Size>
struct HeadRows {
  static constexpr int pitch = Size * 2 + 16;
  template <int Rows, int Threads>
  static __device__ __forceinline__ void copy(unsigned to, const char* from, long long step_bytes, int first,
                                              int count) {
    constexpr int units = Size / 8;
    for (int at = threadIdx.x; at < Rows * units; at += Threads) {
      int row = at / units, unit = at % units;
      bool valid = first + row < count;
      copy16(to + row * pitch + unit * 16, from + (valid ? (first + row) * step_bytes + unit * 16 : 0), valid);
    }
  }
};

// One block: 16 x `Tall` queries for each of `Warps` warps, of head blockIdx.y of the batch.
//   q: (batch, queries, heads, Size)   k: (batch, keys, groups, Size)   v: (batch, keys, groups, ValueSize)
// Query i sees the keys up to i + last, if Causal. `bias` is added to the scores; its strides count elements.
template <typename E, typename T, int Size, int ValueSize, int Warps, int Tall, bool Causal, bool Biased>
__device__ __forceinline__ void attend(const void* shared, const T* q, const T* k, const T* v, T* out, const T* bias,
                                       int queries, int keys, int heads, int groups, float scale, int last,
                                       long long bias_batch, long long bias_head, long long bias_query) {
  constexpr int threads = Warps * 32;
  constexpr int rows = Warps * 16 * Tall;
  constexpr bool kept = Tall * Size <= 128;  // queries in registers, or read from shared memory time and again
  constexpr int block = kept ? 64 : 32;      // keys at once: more have no room for their scores then
  constexpr float log2e = 1.4426950408889634f;
  unsigned q_tile = shared_at(shared);
  unsigned k_ring = q_tile + rows * HeadRows<Size>::pitch;
  unsigned v_ring = k_ring + 2 * block * HeadRows<Size>::pitch;
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  // the last queries first: with a causal mask they take longest
  int first = (gridDim.x - 1 - blockIdx.x) * rows;
  int batch = blockIdx.y / heads, head = blockIdx.y % heads, group = head / (heads / groups);
  long long q_step = static_cast<long long>(heads) * Size * 2, k_step = static_cast<long long>(groups) * Size * 2;
  long long v_step = static_cast<long long>(groups) * ValueSize * 2;
  const char* q_at = reinterpret_cast<const char*>(q) + batch * queries * q_step + head * (Size * 2);
  const char* k_at = reinterpret_cast<const char*>(k) + batch * keys * k_step + group * (Size * 2);
  const char* v_at = reinterpret_cast<const char*>(v) + batch * keys * v_step + group * (ValueSize * 2);

  int end = Causal ? min(keys, first + rows + last) : keys;
  int blocks = (end + block - 1) / block;
  HeadRows<Size>::template copy<rows, threads>(q_tile, q_at, q_step, first, queries);
  HeadRows<Size>::template copy<block, threads>(k_ring, k_at, k_step, 0, keys);
  HeadRows<ValueSize>::template copy<block, threads>(v_ring, v_at, v_step, 0, keys);
  commit_copies();

  float mixed[Tall][ValueSize / 8][4];
  float most[Tall][2], total[Tall][2];
#pragma unroll
  for (int t = 0; t < Tall; ++t) {
    most[t][0] = most[t][1] = lowest();
    total[t][0] = total[t][1] = 0.0f;
#pragma unroll
    for (int i = 0; i < ValueSize / 8; ++i) {
#pragma unroll
      for (int c = 0; c < 4; ++c) mixed[t][i][c] = 0.0f;
    }
  }
  unsigned query[kept ? Size / 16 : 1][Tall][4];
  int top = first + warp * 16 * Tall + lane / 4;  // of this thread's rows, the next ones are 8 further down
  unsigned q_rows = q_tile + (warp * 16 * Tall + lane % 16) * HeadRows<Size>::pitch + lane / 16 * 16;

  for (int j = 0; j < blocks; ++j) {
    wait_copies<0>();
    __syncthreads();
    if (kept && j == 0) {
#pragma unroll
      for (int d = 0; d < Size / 16; ++d) {
#pragma unroll
        for (int t = 0; t < Tall; ++t) {
          load_matrices(query[kept ? d : 0][t], q_rows + t * 16 * HeadRows<Size>::pitch + d * 32);
        }
      }
    }
    unsigned k_tile = k_ring + j % 2 * block * HeadRows<Size>::pitch;
    unsigned v_tile = v_ring + j % 2 * block * HeadRows<ValueSize>::pitch;
    if (j + 1 < blocks) {
      unsigned other = (j + 1) % 2 * block;
      HeadRows<Size>::template copy<block, threads>(k_ring + other * HeadRows<Size>::pitch, k_at, k_step,
                                                    (j + 1) * block, keys);
      HeadRows<ValueSize>::template copy<block, threads>(v_ring + other * HeadRows<ValueSize>::pitch, v_at, v_step,
                                                         (j + 1) * block, keys);
      commit_copies();
    }
    float score[Tall][block / 8][4];
#pragma unroll
    for (int t = 0; t < Tall; ++t) {
#pragma unroll
      for (int n = 0; n < block / 8; ++n) {
#pragma unroll
        for (int c = 0; c < 4; ++c) score[t][n][c] = 0.0f;
      }
    }
#pragma unroll
    for (int d = 0; d < Size / 16; ++d) {
      if (!kept) {
#pragma unroll
        for (int t = 0; t < Tall; ++t) {
          load_matrices(query[0][t], q_rows + t * 16 * HeadRows<Size>::pitch + d * 32);
        }
      }
#pragma unroll
      for (int n = 0; n < block / 16; ++n) {
        unsigned key[4];
        int row = n * 16 + lane % 8 + lane / 16 * 8;
        load_matrices(key, k_tile + row * HeadRows<Size>::pitch + d * 32 + lane / 8 % 2 * 16);
#pragma unroll
        for (int t = 0; t < Tall; ++t) {
          E::multiply(score[t][2 * n], query[kept ? d : 0][t], key);
          E::multiply(score[t][2 * n + 1], query[kept ? d : 0][t], key + 2);
        }
      }
    }
    bool whole = (j + 1) * block <= keys && (!Causal || (j + 1) * block - 1 <= first + warp * 16 * Tall + last);
#pragma unroll
    for (int t = 0; t < Tall; ++t) {
      float best[2] = {most[t][0], most[t][1]};
#pragma unroll
      for (int n = 0; n < block / 8; ++n) {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          int key = j * block + n * 8 + lane % 4 * 2 + c % 2, row = top + t * 16 + c / 2 * 8;
          float value = score[t][n][c] * (scale * log2e);
          if constexpr (Biased) {
            if (row < queries && key < keys) {
              long long at = batch * bias_batch + head * bias_head + row * bias_query + key;
              value += E::widen(reinterpret_cast<const unsigned short*>(bias)[at]) * log2e;
            }
          }
          if (!whole && (key >= keys || (Causal && key > row + last))) value = lowest();
          score[t][n][c] = value;
          best[c / 2] = fmaxf(best[c / 2], value);
        }
      }
      float base[2];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        best[h] = fmaxf(best[h], __shfl_xor_sync(0xffffffffu, best[h], 1));
        best[h] = fmaxf(best[h], __shfl_xor_sync(0xffffffffu, best[h], 2));
        float decay = best[h] == lowest() ? 1.0f : exp2f(most[t][h] - best[h]);
        most[t][h] = best[h];
        base[h] = best[h] == lowest() ? 0.0f : best[h];
        total[t][h] *= decay;
#pragma unroll
        for (int i = 0; i < ValueSize / 8; ++i) mixed[t][i][2 * h] *= decay, mixed[t][i][2 * h + 1] *= decay;
      }
#pragma unroll
      for (int n = 0; n < block / 8; ++n) {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          score[t][n][c] = exp2f(score[t][n][c] - base[c / 2]);
          total[t][c / 2] += score[t][n][c];
        }
      }
    }
#pragma unroll
    for (int n = 0; n < block / 16; ++n) {
      unsigned weight[Tall][4];
#pragma unroll
      for (int t = 0; t < Tall; ++t) {
        weight[t][0] = E::pack(score[t][2 * n][0], score[t][2 * n][1]);
        weight[t][1] = E::pack(score[t][2 * n][2], score[t][2 * n][3]);
        weight[t][2] = E::pack(score[t][2 * n + 1][0], score[t][2 * n + 1][1]);
        weight[t][3] = E::pack(score[t][2 * n + 1][2], score[t][2 * n + 1][3]);
      }
#pragma unroll
      for (int e = 0; e < ValueSize / 16; ++e) {
        unsigned value[4];
        load_transposed(value, v_tile + (n * 16 + lane % 16) * HeadRows<ValueSize>::pitch + e * 32 + lane / 16 * 16);
#pragma unroll
        for (int t = 0; t < Tall; ++t) {
          E::multiply(mixed[t][2 * e], weight[t], value);
          E::multiply(mixed[t][2 * e + 1], weight[t], value + 2);
        }
      }
    }
  }
#pragma unroll
  for (int t = 0; t < Tall; ++t) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      total[t][h] += __shfl_xor_sync(0xffffffffu, total[t][h], 1);
      total[t][h] += __shfl_xor_sync(0xffffffffu, total[t][h], 2);
      float share = total[t][h] == 0.0f ? 0.0f : 1.0f / total[t][h];
      int row = top + t * 16 + h * 8;
      if (row < queries) {
        unsigned* to = reinterpret_cast<unsigned*>(
            out + (static_cast<long long>(batch) * queries + row) * heads * ValueSize + head * ValueSize);
#pragma unroll
        for (int i = 0; i < ValueSize / 8; ++i) {
          to[i * 4 + lane % 4] = E::pack(mixed[t][i][2 * h] * share, mixed[t][i][2 * h + 1] * share);
        }
      }
    }
  }
}

}  // namespace dscc
#endif
