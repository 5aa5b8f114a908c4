# RUN: %dscc opt -p fuse-integer-casts --remarks %s | filecheck %s

# CHECK-LABEL: def convolution(
# CHECK-NOT: R.nn.conv2d(
# CHECK: R.call_tir(cls.conv2d_dot, (q

# CHECK-LABEL: def groups_in_float(
# CHECK: R.nn.conv2d({{.*}}groups=2
# CHECK: R.astype({{.*}}dtype="int32")

# CHECK-LABEL: def product(
# CHECK-NOT: R.matmul(
# CHECK: R.call_tir(cls.dot, (q

# CHECK-LABEL: def second_user(
# CHECK: R.subtract(
# CHECK: R.call_tir(cls.dot{{[0-9]*}}, (q

# CHECK-LABEL: def weight_is_computed(
# CHECK: R.matmul(

# CHECK-LABEL: def zero_per_row(
# CHECK: R.matmul(


@I.ir_module
class Module:
    @R.function
    def product(q: R.Tensor(("b", "n", 3), "uint8"), z: R.Tensor((), "uint8")):
        b, n = T.int64(), T.int64()
        with R.dataflow():
            wide = R.astype(q, dtype="int32")
            zero = R.astype(z, dtype="int32")
            centred = R.subtract(wide, zero)
            weight = R.astype(R.const([[1, -2], [5, 6], [-9, 10]], "int8"), dtype="int32")
            out = R.matmul(centred, weight)
            R.output(out)
        return out

    @R.function
    def second_user(q: R.Tensor(("n", 3), "int8")):
        n = T.int64()
        with R.dataflow():
            wide = R.astype(q, dtype="int32")
            centred = R.subtract(wide, R.const(5, "int32"))
            stored = R.astype(R.const([[1, 200], [5, 6], [9, 10]], "uint8"), dtype="int32")
            weight = R.subtract(stored, R.const(128, "int32"))
            product = R.matmul(centred, weight)
            out = R.add(R.sum(centred), product)
            R.output(out)
        return out

    @R.function
    def convolution(q: R.Tensor(("n", "h", 5, 1), "uint8")):
        n, h = T.int64(), T.int64()
        with R.dataflow():
            wide = R.astype(q, dtype="int32")
            centred = R.subtract(wide, R.const(3, "int32"))
            weight = R.astype(R.const([[[[1], [-2]], [[5], [6]]], [[[3], [0]], [[-7], [8]]]], "int8"), dtype="int32")
            out = R.nn.conv2d(
                centred, weight, strides=[2, 1], padding=[1, 1, 0, 1], data_layout="NHWC", kernel_layout="OHWI"
            )
            R.output(out)
        return out

    @R.function
    def groups_in_float(q: R.Tensor((1, 4, 5, 2), "uint8")):
        with R.dataflow():
            wide = R.astype(q, dtype="int32")
            weight = R.astype(R.const([[[[1], [-2]], [[5], [6]]], [[[3], [0]], [[-7], [8]]]], "int8"), dtype="int32")
            out = R.nn.conv2d(wide, weight, groups=2, data_layout="NHWC", kernel_layout="OHWI")
            R.output(out)
        return out

    @R.function
    def zero_per_row(q: R.Tensor((4, 3), "uint8"), z: R.Tensor((4, 1), "int32")):
        with R.dataflow():
            wide = R.astype(q, dtype="int32")
            centred = R.subtract(wide, z)
            weight = R.astype(R.const([[1, -2], [5, 6], [-9, 10]], "int8"), dtype="int32")
            out = R.matmul(centred, weight)
            R.output(out)
        return out

    @R.function
    def weight_is_computed(q: R.Tensor((4, 3), "uint8"), w: R.Tensor((3, 2), "int8")):
        with R.dataflow():
            wide = R.astype(q, dtype="int32")
            weight = R.astype(w, dtype="int32")
            out = R.matmul(wide, weight)
            R.output(out)
        return out
