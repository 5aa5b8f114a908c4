"""What the fuzzer found, made small: each was a wrong result or an error without explanation."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from benchmarks.fuzz import judge
from benchmarks.fuzz.build import Case

FOUND = {
    # `~` was taken for something without operands.
    "the other bits of a place": (
        "(float[8, 24] x) => (int64[a, b] y) { p = ArgMax<select_last_index = 1>(x) y = BitwiseNot(p) }",
        {"x": (8, 24)},
    ),
    # Booleans in a temporary that is read and written in vectors alone: TVM made int8 of them, and stored that.
    "a split of three times the same booleans": (
        """(float[16, 3] x) => (bool[a, b] y, bool[c, d] z) <float zero = {0.0}> {
        p = Greater(x, zero) c = Concat<axis = 0>(p, p, p) y, z, w = Split<num_outputs = 3>(c) }""",
        {"x": (16, 3)},
    ),
    # Every sixteenth factor was multiplied first: 4 ** 160 is infinite.
    "a product of large and small numbers in turn": (
        """(float[160, 2] x) => (float[1, 1] y) <float[1, 2] w = {4.0, 0.25}> {
        a = Erf(x) z = Mul(a, a) e = Exp(z) d = Div(e, e) p = Mul(d, w) y = ReduceProd(p) }""",
        {"x": (160, 2)},
    ),
    # A choice times what it chooses from, in a variable: TVM made an integer of the type float.
    "a sum of what is chosen times what it is chosen from": (
        """(float[33, 8] x, float[8] s) => (float[1, 8] y) <int64[1] axis = {-2}> {
        p = PRelu(x, s) m = Mul(p, x) a = Abs(m) y = ReduceSum(a, axis) }""",
        {"x": (33, 8), "s": (8,)},
    ),
    # TVM's simplifier went through the place that is read some hundred times.
    "a power that is turned around": (
        "(float[n, m, k] x) => (float[k, m, n] y) <float e = {2.5}> { a = Abs(x) p = Pow(a, e) y = Transpose(p) }",
        {"x": (3, 4, 5)},
    ),
    # Four functions within one another behind a product: TVM took minutes.
    "a softplus of a softplus of a convolution": (
        """(float[n, 32, k] x, float[32, 1, 1] w) => (float[n, 32, k] y) {
        c = Conv<group = 32, kernel_shape = [1]>(x, w) s = Softplus(c) y = Softplus(s) }""",
        {"x": (2, 32, 9), "w": (32, 1, 1)},
    ),
    # The number of rows, half of what NonZero found, was taken for the two rows that Expand makes of one.
    "a computed number of rows that is 1, expanded": (
        """(float[n] x) => (float[a, b, c] y)
        <int64[2] pairs = {-1, 2}, int64[3] goal = {2, 2, 1}, int64[1] zero = {0}> {
        s = Greater(x, x) t = Not(s) i = NonZero(t) k = Squeeze(i, zero) g = Gather(x, k) r = Reshape(g, pairs)
        y = Expand(r, goal) }""",
        {"x": (2,)},
    ),
    # A power has 47,000 places for its base, and TVM simplified the index of the base in each.
    "a power of three open dimensions where a mask says so": (
        """(float[n, n, n] x, float[n] a, float[n, 1] b) => (float[p, q, r] y) <float e = {2.5}, float low = {-100}> {
        s = Abs(x) w = Pow(s, e) c = LessOrEqual(a, b) y = Where(c, w, low) }""",
        {"x": (5, 5, 5), "a": (5,), "b": (5, 1)},
    ),
    # A value that may be a scalar, since Squeeze takes all axes of length 1, reached TVM with an axis.
    "sums along what may have no axis": (
        """(float[n] x) => (float[m] y) <int64 zero = {0}> {
        i = NonZero(x) s = Squeeze(i) g = Gather(x, s) y = CumSum(g, zero) }""",
        {"x": (9,)},
    ),
    # A loop over n - 1 slices, where TVM concludes from a condition that there are none, was divided by their number.
    "a convolution over an open depth": (
        """(float[2, 17, n, 3, 12] x, float[32, 17, 2, 2, 2] w) => (float[a, b, c, d, e] y) { y = Conv(x, w) }""",
        {"x": (2, 17, 3, 3, 12), "w": (32, 17, 2, 2, 2)},
    ),
    # Two temporaries shared their memory, and the vector that is moved back over its neighbour read what that wrote.
    "a softmax of padded rows": (
        """(float[3, 17] x) => (float[a, b] y) <int64[4] p = {0, 0, 2, 0}, float one = {1}> {
        q = Pad(x, p, one) y = Softmax(q) }""",
        {"x": (3, 17)},
    ),
    "a softmax of padded rows of an open length": (
        """(float[n, m] x) => (float[a, b] y) <int64[4] p = {0, 0, 2, 0}, float one = {1}> {
        q = Pad(x, p, one) y = Softmax(q) }""",
        {"x": (3, 21)},
    ),
    # One kernel wrote a size as a product of a sum, and the one it was fused with as the sum of products.
    "twice a padded tensor, padded once more by a size": (
        """(float[h, w] x) => (float[a, b] y) <int64[4] p = {2, 0, 0, 2}, int64[1] one = {1}, int64[1] two = {2},
         int64[1] four = {4}, int64[3] zeros = {0, 0, 0}> {
        q = Pad(x, p) r = Concat<axis = 0>(q, q) t = Tanh(r) c = Acos(t) s = Shape(c) n = Slice(s, one, two)
        m = Mod(n, four) rest = Sub(four, m) widths = Concat<axis = 0>(zeros, rest) y = Pad(c, widths) }""",
        {"x": (3, 5)},
    ),
    # "To the end" was 2**62, which times the divisor is 0 in 64 bits: TVM proved that every size is larger.
    "every second one of a quarter of a product of sizes": (
        """(float[1, 15, h, w] x) => (float[a, b] y)
        <int64[8] p = {0, 0, 2, 1, 1, 2, 2, 1}, int64[2] q = {4, -1}, int64[2] first = {1, -1554},
         int64[2] last = {3, 9223372036854775807}, int64[2] axes = {0, 1}, int64[2] steps = {1, 2}> {
        f = Pad(x, p) r = Reshape(f, q) y = Slice(r, first, last, axes, steps) }""",
        {"x": (1, 15, 4, 9)},
    ),
    # `!=` of two expressions waits for an `if`: it was taken for a number.
    "whether a size is true": (
        """(float[n, 4] x) => (bool a, bool b, bool c, int64 d) {
        s = Size(x) most = Constant<value_int = 20>() l = Less(s, most) a = Cast<to = 9>(l) b = Cast<to = 9>(s)
        g = Greater(s, most) c = Equal(l, g) d = Cast<to = 7>(l) }""",
        {"x": (5, 4)},
    ),
    # TVM has no batch normalization over a number of channels that data decides.
    "a batch normalization of what was chosen": (
        """(float[1, 3, 4] x, float[3] m) => (float[a, b, c] y)
        <float[3] s = {0.5, -1, 2}, float[3] t = {1, 0, 3}, float[3] v = {1, 2, 0.5}> {
        far = Abs(m) index = NonZero(far) axis = Constant<value_ints = [0]>() where = Squeeze(index, axis)
        g = Gather<axis = 1>(x, where) y = BatchNormalization(g, s, t, m, v) }""",
        {"x": (1, 3, 4), "m": (3,)},
    ),
    # A computed dimension of 1 was taken for what it is broadcast to.
    "one element or none, expanded": (
        """(float[n] x) => (float[k] y) <int64[1] a = {3}, int64[1] b = {4}, int64[1] z = {0}, int64[1] c = {3}> {
        s = Slice(x, a, b, z, c) h = Shape(x) y = Expand(s, h) }""",
        {"x": (15,)},
    ),
    # A value that TVM keeps in float32 was asked for the 16 bits of a bfloat16.
    "whether a bfloat16 is true": (
        """(float[1] x) => (bool[a, b] y) <int64[1] one = {1}> {
        n = Cast<to = 16>(x) m = Unsqueeze(n, one) y = Cast<to = 9>(m) }""",
        {"x": (1,)},
    ),
    # What is known of the sizes became a tensor in the first branch that needed it, and the other took it from there.
    "both branches look at a size": (
        """(float[4, n] x, float[4, 3] z) => (float[a, b] y) {
        count = Size(x) limit = Constant<value_int = 40>() small = Less(count, limit)
        y = If(small) <
            then_branch = one () => (float[a, b] first) { twice = Add(z, z) first = Where(small, twice, z) },
            else_branch = two () => (float[a, b] second) { half = Neg(z) second = Where(small, z, half) }> }""",
        {"x": (4, 11), "z": (4, 3)},
    ),
    # A dimension that is 1 whatever the size is, but not written as 1, left a concatenation without a shape.
    "a slice of one column beside a column": (
        """(float[3, 1, n] x) => (float[a, b, c] y)
        <int64[1] first = {-3}, int64[1] last = {9223372036854775807}, int64[1] axis = {2}, int64[1] step = {3},
         float[2, 1, 1] w = {3, 5}> { part = Slice(x, first, last, axis, step) y = Concat<axis = 0>(w, part, part) }""",
        {"x": (3, 1, 4)},
    ),
    # `x != x` evaluated an expression with variables of its own twice.
    "IsNaN of a function": ("(float[n, m] x) => (bool[n, m] y) { e = Exp(x) y = IsNaN(e) }", {"x": (3, 20)}),
    # TVM's search for reshapes fails on slices of symbolic extents, here of padded columns.
    "a transposed convolution that is cropped": (
        """(float[2, 3, 12, n] x) => (float[2, 1, 12, m] y)
        <float[3, 1, 1, 3] w = {0.2, -0.2, 0.1, 0.6, 0.1, -0.1, 0.3, -0.1, -0.4}, float[1] b = {1}> {
        y = ConvTranspose<kernel_shape = [1, 3], pads = [0, 2, 0, 2], strides = [1, 3]>(x, w, b) }""",
        {"x": (2, 3, 12, 5)},
    ),
    # A condition that only a size of 0 fails was simplified to a division by 0.
    "images of which only the width is open": (
        "(float[n, 3, 16, m] x) => (float[n, 16, m, 3] y) { y = Transpose<perm = [0, 2, 3, 1]>(x) }",
        {"x": (2, 3, 16, 5)},
    ),
    # A vector that is interleaved from several axes took all its elements for those of one row.
    "a triangle before channels last": (
        """(float[2, 4, 16, 17] x, float[4, 1, 3, 3] w) => (float[2, 4, h, k] y) {
        t = Trilu<upper = 0>(x) y = Conv<group = 4, pads = [1, 1, 1, 1], strides = [3, 3]>(t, w) }""",
        {"x": (2, 4, 16, 17), "w": (4, 1, 3, 3)},
    ),
    # A call of a function of C was evaluated for a vector of lanes.
    "a remainder inside of a row": (
        "(float[n, 8] x, float[1, 8] d) => (float[n, 8] y) { m = Mod<fmod = 1>(x, d) y = LogSoftmax(m) }",
        {"x": (5, 8), "d": (1, 8)},
    ),
    # TVM takes the bounds of a quotient of floats for integers, where it is computed twice and gets a name.
    "nearest pixels of an open height, for three channels": (
        """(float[1, 17, n, 3] x) => (float[a, b, c, d] y)
        <int64[1] two = {2}, int64[1] zero = {0}, int64[1] three = {3}, int64[1] end = {6}> {
        s = Shape(x) head = Slice(s, zero, two) h = Slice(s, two, three) wide = Mul(h, two)
        all = Concat<axis = 0>(head, wide, end)
        y = Resize<coordinate_transformation_mode = "asymmetric">(x, , , all) }""",
        {"x": (1, 17, 7, 3)},
    ),
    # 1.5 / 3 - 0.5 is 0, where 1.5 * 0.33333334 - 0.5 is more: rounded up, the neighbour.
    "pixels rounded up at three times the size": (
        """(float[2, 6, n] x) => (float[2, 6, m] y) <float[3] s = {1, 1, 3}> {
        y = Resize<nearest_mode = "ceil">(x, , s) }""",
        {"x": (2, 6, 33)},
    ),
    # A match_cast of a tuple defines the symbols in it, before what checks them.
    "a product with as many as are distinct": (
        "(float[5] x, float[5, 3] w) => (float[3] y) { a, i, j, k = Unique(x) y = MatMul(a, w) }",
        {"x": (5,), "w": (5, 3)},
    ),
    # FuseTIR finds no n in the shape `n + 2 + n`, nor in `n * 8 - 1 + 2 + 1 - 2`.
    "a triangle of a sum of sizes": (
        """(float[n, 8] x, float[2, 8] w) => (float[m, 8] y) {
        c = Concat<axis = 0>(x, w, x) t = Trilu(c) y = Mul(t, t) }""",
        {"x": (3, 8), "w": (2, 8)},
    ),
    "a transposed convolution that is cropped to its input": (
        """(float[1, 1, n] x) => (float[1, 2, m] y)
        <int64[1] every = {-1}, int64[2] axes = {0, 1}, float[1, 2, 3] w = {0.2, -0.2, 0.1, 0.6, 0.1, -0.1}> {
        flat = Reshape(x, every) long = Concat<axis = 0>(flat, flat) made = Unsqueeze(long, axes)
        y = ConvTranspose<pads = [0, 2]>(made, w) }""",
        {"x": (1, 1, 13)},
    ),
    # `min(n, 1)` and `n` were taken for sizes that have to be equal.
    "the first of those found for all of them": (
        """(float[n] x) => (int64[1, m] y) <int64[1] zero = {0}, int64[1] one = {1}> {
        found = NonZero(x) s = Shape(found) first = Slice(found, zero, one, one) y = Expand(first, s) }""",
        {"x": (4,)},
    ),
    # Where s1 >= 16 the slice has no rows, and TVM divides by their number.
    "rows that only small images have": (
        """(float[n, m, m] x) => (float[n, k, m] y) <int64[1] from = {-6}, int64[1] to = {4}, int64[1] axis = {1},
        int64[1] step = {2}> { y = Slice(x, from, to, axis, step) }""",
        {"x": (3, 7, 7)},
    ),
    # Relax's split has no part without elements.
    "parts without elements": (
        """(float[3, 4, 2] x) => (float[3, 0, 2] a, float[3, 4, 2] b) <int64[2] parts = {0, 4}> {
        a, b = Split<axis = 1>(x, parts) }""",
        {"x": (3, 4, 2)},
    ),
    # The bounds of an integer inside of the logarithm were compared with and without its definition.
    "logarithms and powers as integers": (
        """(float[n, 20] x, float[20] b) => (int32[n, 20] y) {
        a = Abs(x) l = Log(a) p = Pow(a, b) s = Add(l, p) t = Add(s, b) y = Cast<to = 6>(t) }""",
        {"x": (3, 20), "b": (20,)},
    ),
    # What is joined has shapes of which it is not proved that they are equal.
    "two of three parts of a sequence": (
        """(float[n, 6] x) => (float[m, 12] y) {
        a, b, c = Split<num_outputs = 3>(x) s = SequenceConstruct(b, c) y = ConcatFromSequence<axis = -1>(s) }""",
        {"x": (9, 6)},
    ),
    # In the target of Relax's reshape, 0 stands for the dimension that was there.
    "new axes before one without elements": (
        "(float[4, 0, 4] x) => (float[a, b, c, d, e] y) <int64[2] axes = {0, 1}> { y = Unsqueeze(x, axes) }",
        {"x": (4, 0, 4)},
    ),
    # FlattenBuffer makes `56 - i` of `(63 - i) // 8 * 8 + (7 - i) % 8`.
    "an image from its end": (
        """(float[8, 8] x) => (float[n] y) <int64[1] flat = {-1}, int64 zero = {0}> {
        v = Reshape(x, flat) y = CumSum<reverse = 1>(v, zero) }""",
        {"x": (8, 8)},
    ),
    # What was read before a convolution turned it was defined by what the convolution reads.
    "a permutation that is an output, and read by a convolution": (
        """(float[2, 2, 2, 1] x, float[1, 1, 3, 3] w) => (float[a, b, c, d] y, float[e, f, g, h] t) {
        t = Transpose<perm = [2, 3, 1, 0]>(x) y = ConvTranspose(t, w) }""",
        {"x": (2, 2, 2, 1), "w": (1, 1, 3, 3)},
    ),
    # Integers of a weight were followed to a shape that is not known.
    "quantized weights in a shape of symbols": (
        """(float[n, 8] x) => (float[8, m] y) <float s = {0.1}, uint8 z = {128},
        int8[4, 3] w = {9, 1, -5, 7, 2, 3, -8, 0, 4, 6, -1, 5}, int8 zero = {0}, int64[1] rest = {-1}> {
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) t = Transpose(d) f = DequantizeLinear(w, s, zero)
        n = Shape<start = 0, end = 1>(x) to = Concat<axis = 0>(n, rest) r = Reshape(f, to) y = MatMul(t, r) }""",
        {"x": (6, 8)},
    ),
    # From 3 * n - 2 rows TVM concludes n >= 2.
    "one row of a transposed convolution with a stride of 3": (
        """(float[1, 4, n, 4] x, float[4, 16, 1, 1] w) => (float[a, b, c, d] y) {
        y = ConvTranspose<strides = [3, 2]>(x, w) }""",
        {"x": (1, 4, 1, 4), "w": (4, 16, 1, 1)},
    ),
    # LLVM 22 loses the wrap of (i + 15) & 15 in vectors of 16.
    "padding around 16 rows of two": (
        """(float[8, 16, 2] x) => (float[a, b, c] y) <int64[6] by = {0, 1, 1, 2, 2, 2}> {
        y = Pad<mode = "wrap">(x, by) }""",
        {"x": (8, 16, 2)},
    ),
    # CanonicalizeBindings puts a constant in the place of its match_cast.
    "a constant below columns that are as many": (
        """(float[4, n] x) => (float[5, m] y) <int64[1] from = {2147483647}, int64[1] to = {-13}, int64[1] axis = {1},
        int64[1] step = {-2}, float[1, 4] w = {0.5, 1.5, 2.5, 3.5}> {
        s = Slice(x, from, to, axis, step) y = Concat<axis = 0>(s, w) }""",
        {"x": (4, 8)},
    ),
    # The simplifier put a function of a function of a function into every place of its variable.
    "a function of a function over rows of one": (
        "(float[n, 1] x) => (float[n, 1] y) { c = Cosh(x) y = Softmax(c) }",
        {"x": (9, 1)},
    ),
    "a product of powers along an open axis": (
        """(float[3, a, b, c] x) => (float[3, a, d, c] y) <float p = {2.5}, int64[1] axis = {2}> {
        z = Abs(x) e = Pow(z, p) y = ReduceProd(e, axis) }""",
        {"x": (3, 2, 5, 20)},
    ),
    "functions of functions under a permutation": (
        """(float[a, b, c, d] x) => (float[c, b, a, d] y) {
        e = Exp(x) t = Transpose<perm = [2, 1, 0, 3]>(e) s = Sin(t) y = Cosh(s) }""",
        {"x": (2, 3, 4, 37)},
    ),
    # TVM's search in the index of a scan takes minutes for four symbols.
    "running sums over four open axes": (
        "(float[a, b, c, d] x) => (float[a, b, c, d] y) <int64 axis = {2}> { y = CumSum<reverse = 1>(x, axis) }",
        {"x": (2, 3, 5, 4)},
    ),
    # What is kept for a row of one element was read from the last vector of rows.
    "a softmax over rows of one": (
        """(float[n, 1] x) => (float[n, 1] y) <float far = {9}> {
        s = Mul(x, far) e = Exp(s) a = Add(e, s) y = Softmax(a) }""",
        {"x": (77, 1)},
    ),
    # FuseTIR compares sizes by their form: a kernel had a symbol where its argument has `48 // n`.
    "columns that follow from the rows of another": (
        """(float[n, 4] x, float[2, 24] v) => (bfloat16[4, k] y) <int64[1] rest = {-1}> {
        a = Cast<to = 16>(x) b = Cast<to = 16>(v) n = Shape<start = 0, end = 1>(a) s = Concat<axis = 0>(n, rest)
        r = Reshape(b, s) t = Transpose(a) p = MatMul(t, r) y = Abs(p) }""",
        {"x": (3, 4), "v": (2, 24)},
    ),
    # VectorizeLoop of TVM 0.27 took the function of a scalar for two.
    "a choice between functions of one element": (
        "(float[1, 1] x) => (float[a, b] y) <int64[2] t = {1, 37}> { v = Expand(x, t) y = Elu<alpha = 1.5>(v) }",
        {"x": (1, 1)},
    ),
    # LLVM's loop vectorizer took `i % 8` for i.
    "rows that come again": (
        "(float[3, 8, 8] x) => (float[6, 16, 24] y) <int64[3] times = {2, 2, 3}> { y = Tile(x, times) }",
        {"x": (3, 8, 8)},
    ),
    # TVM makes a product of booleans of it, and has no code for one.
    "the square of a condition": (
        """(float[n] x) => (float y) <int64 most = {5}> {
        s = Size(x) l = Less(s, most) c = Cast<to = 1>(l) y = Mul(c, c) }""",
        {"x": (17,)},
    ),
    "the product of two conditions": (
        """(float[n] x, float[n] z) => (float[n] y) { a = Less(x, z) b = Cast<to = 1>(a) c = Less(z, b)
        d = Cast<to = 1>(c) y = Mul(b, d) }""",
        {"x": (37,), "z": (37,)},
    ),
    # A size that an input has is stated again behind Unique: what used it waited for that, and the rest for both.
    "rows by places that are counted (tf2onnx's segment sum)": (
        """(float[n, 4] x, float[k] z) => (float[r, 4] y) <int64[1] rows = {7}, int64 zero = {0}, int64 one = {1},
        int64[1] last = {-1}, int64[1] second = {1}, int64[4] below = {0, 0, 1, 0}> {
        h = Pad(x, below) o = Abs(z) c = Cast<to = 7>(o) n = Shape(c) v, at = TopK<axis = 0, largest = 0>(c, n)
        a = Unsqueeze(v, last) u, f, i, counts = Unique<axis = 0>(v) most = ReduceMax(counts)
        s = Concat<axis = 0>(rows, most) e = ConstantOfShape<value = int64[1] {-1}>(s) g = Gather(counts, i)
        q = Squeeze(n) r = Range(zero, q, one) m = Mod(r, g) b = Unsqueeze(m, last)
        d = Concat<axis = 1>(a, b) w = ScatterND(e, d, at) l = Gather(h, w)
        y = ReduceSum<keepdims = 0>(l, second) }""",
        {"x": (9, 4), "z": (9,)},
    ),
    # Plain loops took the first of nothing for the beginning of a sum.
    "a sum over nothing in bfloat16": (
        """(float[n, 5] x) => (bfloat16[1, 5] y) <int64[2] low = {9, 0}, int64[2] high = {0, 5}, int64[2] axes = {0, 1},
        int64[2] step = {-1, 1}, int64[1] rows = {0}> {
        a = Cast<to = 16>(x) b = Slice(a, low, high, axes, step) y = ReduceSum(b, rows) }""",
        {"x": (1, 5)},
    ),
    # Relax's reshape of (k, 0) to (0,) gave (k,).
    "nothing of a computed length": (
        """(float[3, 1] x) => (float[n] y) <int64[2] low = {-3, 1}, int64[2] axes = {0, 1}, int64[1] one = {1},
        int64[1] step = {3}, int64[1] rest = {-1}> {
        m = ReduceMax<keepdims = 0>(x) i = Cast<to = 7>(m) f = Shape(x) e = Add(f, i) a = Slice(x, low, e, axes)
        b = Slice(a, one, one, one, step) y = Reshape(b, rest) }""",
        {"x": (3, 1)},
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found(name: str) -> None:
    text, shapes = FOUND[name]
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> f {text}')
    rng = np.random.default_rng(0)
    feeds = [{key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}]
    verdict = judge.judge(Case(model, feeds))
    assert verdict.kind == "agrees", f"{verdict.kind}: {verdict.reason}\n{verdict.detail}"
