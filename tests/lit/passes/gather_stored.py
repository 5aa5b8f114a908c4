# RUN: %dscc opt -p gather-stored --remarks %s | filecheck %s

# CHECK-DAG: refused at %out (take): the scale has to be one number or one per row that is gathered, got shape [1, 4]
# CHECK-DAG: refused at %rows (take): %expanded (multiply) is also read by %total (sum)

# CHECK-LABEL: def one_scale(
# CHECK: R.take(
# CHECK: R.astype(
# CHECK: R.multiply(

# CHECK-LABEL: def scale_per_column(
# CHECK: R.astype(
# CHECK: R.take(

# CHECK-LABEL: def scale_per_row(
# CHECK: R.take(
# CHECK: R.astype(
# CHECK: R.take(

# CHECK-LABEL: def second_user(
# CHECK: R.astype(
# CHECK: R.take(


@I.ir_module
class Module:
    @R.function
    def one_scale(ids: R.Tensor(("n", "s"), "int64")):
        n, s = T.int64(), T.int64()
        with R.dataflow():
            stored = R.astype(R.const([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]], "int8"), dtype="float32")
            expanded = R.multiply(R.const(0.5, "float32"), stored)
            out = R.take(expanded, ids, axis=0, mode="clip")
            R.output(out)
        return out

    @R.function
    def scale_per_row(ids: R.Tensor(("n",), "int64")):
        n = T.int64()
        with R.dataflow():
            stored = R.astype(R.const([[1, 2], [5, 6], [9, 10]], "int8"), dtype="float32")
            expanded = R.multiply(stored, R.const([[0.5], [0.25], [2.0]], "float32"))
            out = R.take(expanded, ids, axis=0, mode="clip")
            R.output(out)
        return out

    @R.function
    def scale_per_column(ids: R.Tensor((5,), "int64")):
        with R.dataflow():
            stored = R.astype(R.const([[1, 2, 3, 4], [5, 6, 7, 8]], "int8"), dtype="float32")
            expanded = R.multiply(stored, R.const([[0.5, 0.25, 2.0, 1.0]], "float32"))
            out = R.take(expanded, ids, axis=0, mode="clip")
            R.output(out)
        return out

    @R.function
    def second_user(ids: R.Tensor((5,), "int64")):
        with R.dataflow():
            stored = R.astype(R.const([[1, 2, 3, 4], [5, 6, 7, 8]], "int8"), dtype="float32")
            expanded = R.multiply(stored, R.const(0.5, "float32"))
            rows = R.take(expanded, ids, axis=0, mode="clip")
            total = R.sum(expanded)
            out = R.add(rows, total)
            R.output(out)
        return out
