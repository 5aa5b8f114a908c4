# RUN: %dscc opt -p legalize-operators,fuse-operators %s | filecheck %s

# An epilogue goes into the kernel of its producer; a value that two kernels need stays one of its own.

# CHECK-LABEL: def fused_matmul_add_relu(
# CHECK-LABEL: def epilogue(
# CHECK: R.call_tir(cls.fused_matmul_add_relu, (x, w, b)
# CHECK-NOT: R.call_tir
# CHECK-LABEL: def two_products(
# CHECK: [[first:\w+]] = R.call_tir(cls.
# CHECK-NEXT: R.call_tir(cls.{{.*}}([[first]], w)
# CHECK-NOT: R.call_tir


@I.ir_module
class Module:
    @R.function
    def epilogue(x: R.Tensor(("n", 8), "float32"), w: R.Tensor((8, 8), "float32"), b: R.Tensor((8,), "float32")):
        n = T.int64()
        with R.dataflow():
            p = R.matmul(x, w)
            q = R.add(p, b)
            r = R.nn.relu(q)
            R.output(r)
        return r

    @R.function
    def two_products(x: R.Tensor((3, 8), "float32"), w: R.Tensor((8, 8), "float32")):
        with R.dataflow():
            s = R.matmul(x, w)
            t = R.matmul(s, w)
            R.output(t)
        return t
