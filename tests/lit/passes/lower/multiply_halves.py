# RUN: %dscc opt -p multiply-halves --remarks %s | filecheck %s

# CHECK-LABEL: def constant(
# CHECK-NOT: R.astype(
# CHECK: R.matmul({{.*}}out_dtype="float32")

# CHECK-LABEL: def constant_of_more_digits(
# CHECK: R.astype(
# CHECK: R.matmul(
# CHECK-NOT: out_dtype="float32"

# CHECK-LABEL: def halves(
# CHECK-NOT: R.astype(a
# CHECK: R.matmul(a, b, out_dtype="float32")

# CHECK-LABEL: def one_half(
# CHECK: R.astype(a
# CHECK-NOT: out_dtype="float32"


@I.ir_module
class Module:
    @R.function
    def halves(a: R.Tensor(("m", 4), "float16"), b: R.Tensor((4, 3), "float16")):
        m = T.int64()
        with R.dataflow():
            p = R.astype(a, dtype="float32")
            q = R.astype(b, dtype="float32")
            out = R.matmul(p, q)
            R.output(out)
        return out

    @R.function
    def one_half(a: R.Tensor((2, 4), "float16"), b: R.Tensor((4, 3), "float32")):
        with R.dataflow():
            p = R.astype(a, dtype="float32")
            out = R.matmul(p, b)
            R.output(out)
        return out

    @R.function
    def constant(a: R.Tensor((2, 2), "float16")):
        with R.dataflow():
            p = R.astype(a, dtype="float32")
            out = R.matmul(p, R.const([[1.0, 0.5], [-2.0, 0.25]], "float32"))
            R.output(out)
        return out

    @R.function
    def constant_of_more_digits(a: R.Tensor((2, 2), "float16")):
        with R.dataflow():
            p = R.astype(a, dtype="float32")
            out = R.matmul(p, R.const([[1.0, 0.1], [-2.0, 0.25]], "float32"))
            R.output(out)
        return out
