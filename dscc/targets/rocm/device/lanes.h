// What is exchanged between lanes of a wavefront, over dscc_lane and dscc_across.

#ifndef DSCC_LANES_H_
#define DSCC_LANES_H_

// All 16 of a column of which lanes 0 to 15 have the even ones and lanes 16 to 31 the odd ones, in both.
#define DSCC_WHOLE(T)                                                                                                \
  DSCC_FUNCTION T##16 dscc_whole(T##8 own) {                                                                         \
    float4 mine = __builtin_astype(own, float4), other;                                                              \
    for (int i = 0; i < 4; ++i) other[i] = dscc_across(mine[i], 16);                                                 \
    bool odd = dscc_lane() & 16;                                                                                     \
    T##8 low = __builtin_astype(odd ? other : mine, T##8), high = __builtin_astype(odd ? mine : other, T##8);        \
    return __builtin_shufflevector(low, high, 0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);                 \
  }
DSCC_WHOLE(half) DSCC_WHOLE(bfloat)

#endif  // DSCC_LANES_H_
