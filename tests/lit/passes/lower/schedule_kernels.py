# RUN: %dscc opt -p legalize-operators,fuse-operators,schedule-kernels --target x86:x86-64-v3 --remarks %s | filecheck %s

# Every kernel says which rule took it. A constant weight is packed as its rule wants it; alike kernels become one.

# CHECK-DAG: # remark: schedule-kernels: fused_matmul_relu: matmul
# CHECK-DAG: # remark: schedule-kernels: sum: {{[a-z]}}

# CHECK-LABEL: def fused_matmul_relu(
# CHECK-NOT: def fused_matmul_relu
# CHECK: T.vectorized
# CHECK-LABEL: def constant_weight(
# CHECK: R.call_tir(cls.fused_matmul_relu, (x, metadata["ir.GenericConst"][0])
# CHECK-LABEL: def reduction(
# CHECK: R.call_tir(cls.sum
# CHECK-LABEL: def same_again(
# CHECK: R.call_tir(cls.fused_matmul_relu


@I.ir_module
class Module:
    @R.function
    def constant_weight(x: R.Tensor(("n", 2), "float32")):
        n = T.int64()
        with R.dataflow():
            a = R.matmul(x, R.const([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], "float32"))
            b = R.nn.relu(a)
            R.output(b)
        return b

    @R.function
    def reduction(x: R.Tensor((3, 8), "float32")):
        with R.dataflow():
            c = R.sum(x, axis=[1])
            R.output(c)
        return c

    @R.function
    def same_again(x: R.Tensor(("n", 2), "float32")):
        n = T.int64()
        with R.dataflow():
            d = R.matmul(x, R.const([[1.5, 2.5, 3.5], [4.0, 5.0, 6.0]], "float32"))
            e = R.nn.relu(d)
            R.output(e)
        return e
