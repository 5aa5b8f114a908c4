# RUN: %dscc opt -p fuse-weight-casts --remarks %s | filecheck %s

# CHECK-LABEL: def vector(
# CHECK: R.astype(
# CHECK: R.matmul(

# CHECK-LABEL: def weight(
# CHECK-NOT: R.matmul(
# CHECK: R.call_tir(cls.matmul_of_int8

# CHECK-LABEL: def weight_is_computed(
# CHECK: R.astype(
# CHECK: R.matmul(


@I.ir_module
class Module:
    @R.function
    def weight(x: R.Tensor(("b", "n", 3), "float32")):
        b, n = T.int64(), T.int64()
        with R.dataflow():
            weight = R.astype(R.const([[1, 2], [-5, 6], [9, -10]], "int8"), dtype="float32")
            out = R.matmul(x, weight)
            R.output(out)
        return out

    @R.function
    def weight_is_computed(x: R.Tensor((4, 3), "float32"), w: R.Tensor((3, 2), "int8")):
        with R.dataflow():
            weight = R.astype(w, dtype="float32")
            out = R.matmul(x, weight)
            R.output(out)
        return out

    @R.function
    def vector(x: R.Tensor((3,), "float32")):
        with R.dataflow():
            weight = R.astype(R.const([[1, 2], [-5, 6], [9, -10]], "int8"), dtype="float32")
            out = R.matmul(x, weight)
            R.output(out)
        return out
