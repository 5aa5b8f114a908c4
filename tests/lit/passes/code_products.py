# RUN: %dscc opt -p code-products --remarks %s | filecheck %s

# CHECK-DAG: refused at %out (matmul): its scales are taken out of the product
# CHECK-DAG: refused at %out (matmul): 1 elements of a column share a scale, which takes more memory than their codes

# CHECK-LABEL: def bytes_with_a_scale(
# CHECK: R.multiply(
# CHECK: R.matmul(

# CHECK-LABEL: def few_bits(
# CHECK-NOT: R.multiply(
# CHECK: R.call_tir(cls.matmul_of_2_bits

# CHECK-LABEL: def scale_per_row(
# CHECK: R.multiply(
# CHECK: R.matmul(

# CHECK-LABEL: def zero_points(
# CHECK-NOT: R.multiply(
# CHECK: R.call_tir(cls.matmul_of_4_bits


@I.ir_module
class Module:
    @R.function
    def zero_points(x: R.Tensor(("n", 3), "float32")):
        n = T.int64()
        with R.dataflow():
            wide = R.astype(R.const([[1, 2], [5, 6], [9, 10]], "uint8"), dtype="int32")
            number = R.astype(R.subtract(wide, R.const([[3, 4]], "int32")), dtype="float32")
            weight = R.multiply(number, R.const([[0.5, 0.25]], "float32"))
            out = R.matmul(x, weight)
            R.output(out)
        return out

    @R.function
    def few_bits(x: R.Tensor(("n", 2), "float32")):
        n = T.int64()
        with R.dataflow():
            stored = R.astype(R.const([[-2, 0, 1], [1, -1, 0]], "int8"), dtype="float32")
            weight = R.multiply(stored, R.const(0.5, "float32"))
            out = R.matmul(x, weight)
            R.output(out)
        return out

    @R.function
    def bytes_with_a_scale(x: R.Tensor((4, 3), "float32")):
        with R.dataflow():
            stored = R.astype(R.const([[1, -2], [-100, 6], [100, 10]], "int8"), dtype="float32")
            weight = R.multiply(stored, R.const(0.5, "float32"))
            out = R.matmul(x, weight)
            R.output(out)
        return out

    @R.function
    def scale_per_row(x: R.Tensor((4, 3), "float32")):
        with R.dataflow():
            stored = R.astype(R.const([[1, 2], [5, 6], [9, 10]], "int8"), dtype="float32")
            weight = R.multiply(stored, R.const([[0.5], [0.25], [2.0]], "float32"))
            out = R.matmul(x, weight)
            R.output(out)
        return out
