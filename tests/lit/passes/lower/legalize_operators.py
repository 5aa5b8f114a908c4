# RUN: %dscc opt -p legalize-operators %s | filecheck %s

# CHECK-LABEL: def elementwise(
# CHECK: R.call_tir(cls.{{.*}}tanh, (x,), {{.*}}R.Tensor((n, 8)
# CHECK-LABEL: def reduction(
# CHECK: R.call_tir(cls.sum{{.*}}, (x,), {{.*}}R.Tensor((3,)
# CHECK-NOT: R.sum
# CHECK-LABEL: def two_users(
# CHECK: [[product:\w+]] = R.call_tir(cls.matmul
# CHECK: R.call_tir({{.*}}([[product]],{{.*}}
# CHECK-NOT: R.add


@I.ir_module
class Module:
    @R.function
    def elementwise(x: R.Tensor(("n", 8), "float32")):
        n = T.int64()
        with R.dataflow():
            a = R.tanh(x)
            R.output(a)
        return a

    @R.function
    def reduction(x: R.Tensor((3, 8), "float32")):
        with R.dataflow():
            b = R.sum(x, axis=[1])
            R.output(b)
        return b

    @R.function
    def two_users(x: R.Tensor((3, 8), "float32"), w: R.Tensor((8, 8), "float32")):
        with R.dataflow():
            c = R.matmul(x, w)
            d = R.add(c, x)
            e = R.multiply(c, d)
            R.output(e)
        return e
