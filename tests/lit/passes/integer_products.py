# RUN: %dscc opt -p integer-products --remarks %s | filecheck %s

# CHECK-DAG: refused at %out (matmul): the weight's scale has to be one number per column

# CHECK-LABEL: def convolution(
# CHECK: "int32") = R.nn.conv2d(
# CHECK: R.multiply(

# CHECK-LABEL: def data_is_real(
# CHECK: R.matmul(x, weight

# CHECK-LABEL: def product(
# CHECK: R.matmul(
# CHECK-NEXT: R.astype({{.*}}dtype="float32")
# CHECK-NEXT: R.multiply(

# CHECK-LABEL: def scale_per_row(
# CHECK: R.multiply(
# CHECK: R.matmul(x1, weight

# CHECK-LABEL: def second_user(
# CHECK: R.multiply(
# CHECK: R.astype({{.*}}dtype="int32")
# CHECK: R.matmul(


@I.ir_module
class Module:
    @R.function
    def product(q: R.Tensor(("b", "n", 3), "uint8")):
        b, n = T.int64(), T.int64()
        with R.dataflow():
            wide = R.astype(q, dtype="int32")
            centred = R.subtract(wide, R.const(117, "int32"))
            real = R.astype(centred, dtype="float32")
            x1 = R.multiply(real, R.const(0.25, "float32"))
            stored = R.astype(R.const([[1, -2], [5, 6], [-9, 10]], "int8"), dtype="float32")
            weight = R.multiply(stored, R.const([[0.5, 0.25]], "float32"))
            out = R.matmul(x1, weight)
            R.output(out)
        return out

    @R.function
    def second_user(q: R.Tensor(("n", 3), "int8")):
        n = T.int64()
        with R.dataflow():
            real = R.astype(q, dtype="float32")
            x1 = R.multiply(real, R.const(0.25, "float32"))
            stored = R.astype(R.const([[1, -2], [5, 6], [-9, 10]], "int8"), dtype="float32")
            product = R.matmul(x1, stored)
            out = R.add(R.sum(x1), product)
            R.output(out)
        return out

    @R.function
    def convolution(q: R.Tensor(("n", 1, "h", 5), "uint8")):
        n, h = T.int64(), T.int64()
        with R.dataflow():
            wide = R.astype(q, dtype="int32")
            centred = R.subtract(wide, R.const(3, "int32"))
            real = R.astype(centred, dtype="float32")
            x1 = R.multiply(real, R.const(0.25, "float32"))
            stored = R.astype(R.const([[[[1, -2], [5, 6]]], [[[3, 0], [-7, 8]]]], "int8"), dtype="float32")
            weight = R.multiply(stored, R.const([[[[0.5]]], [[[0.125]]]], "float32"))
            out = R.nn.conv2d(x1, weight, padding=[1, 1, 1, 1])
            R.output(out)
        return out

    @R.function
    def scale_per_row(q: R.Tensor((4, 3), "uint8")):
        with R.dataflow():
            x1 = R.astype(q, dtype="float32")
            stored = R.astype(R.const([[1, 2], [5, 6], [9, 10]], "int8"), dtype="float32")
            weight = R.multiply(stored, R.const([[0.5], [0.25], [2.0]], "float32"))
            out = R.matmul(x1, weight)
            R.output(out)
        return out

    @R.function
    def data_is_real(x: R.Tensor((4, 3), "float32")):
        with R.dataflow():
            stored = R.astype(R.const([[1, 2], [5, 6], [9, 10]], "int8"), dtype="float32")
            weight = R.multiply(stored, R.const(0.5, "float32"))
            out = R.matmul(x, weight)
            R.output(out)
        return out
