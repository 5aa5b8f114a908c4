# RUN: %dscc opt -p sink-scale --remarks %s | filecheck %s

# CHECK-DAG: refused at %out (matmul): the scale has to be one number or one per column, got shape [3, 1]
# CHECK-DAG: refused at %product (matmul): %weight (multiply) is also read by %total (sum)

# CHECK-LABEL: def one_scale(
# CHECK: R.matmul(
# CHECK: R.multiply(

# CHECK-LABEL: def scale_per_column(
# CHECK: R.matmul(
# CHECK: R.multiply(

# CHECK-LABEL: def scale_per_row(
# CHECK: R.multiply(
# CHECK: R.matmul(

# CHECK-LABEL: def second_user(
# CHECK: R.multiply(
# CHECK: R.matmul(


@I.ir_module
class Module:
    @R.function
    def one_scale(x: R.Tensor(("n", 3), "float32")):
        n = T.int64()
        with R.dataflow():
            stored = R.astype(R.const([[1, 2], [5, 6], [9, 10]], "int8"), dtype="float32")
            weight = R.multiply(stored, R.const(0.5, "float32"))
            out = R.matmul(x, weight)
            R.output(out)
        return out

    @R.function
    def scale_per_column(x: R.Tensor(("b", "n", 3), "float32")):
        b, n = T.int64(), T.int64()
        with R.dataflow():
            stored = R.astype(R.const([[1, 2], [5, 6], [9, 10]], "int8"), dtype="float32")
            weight = R.multiply(R.const([[0.5, 0.25]], "float32"), stored)
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

    @R.function
    def second_user(x: R.Tensor((4, 3), "float32")):
        with R.dataflow():
            stored = R.astype(R.const([[1, 2], [5, 6], [9, 10]], "int8"), dtype="float32")
            weight = R.multiply(stored, R.const(0.5, "float32"))
            product = R.matmul(x, weight)
            total = R.sum(weight)
            out = R.add(product, total)
            R.output(out)
        return out
