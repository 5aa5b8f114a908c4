# RUN: %dscc opt -p legalize-operators,fuse-operators %s | filecheck %s

# An epilogue goes into the kernel of its producer, but no fourth function of functions; a value that two kernels need
# stays one of its own.

# CHECK-LABEL: def fused_matmul{{[0-9]*}}_add_relu(
# CHECK-LABEL: def fused_matmul_tir_exp_tir_tanh_tir_sigmoid(
# CHECK-LABEL: def deep(
# CHECK: [[third:\w+]] = R.call_tir(cls.fused_matmul_tir_exp_tir_tanh_tir_sigmoid, (x, w)
# CHECK-NEXT: R.call_tir(cls.tir_cos{{.*}}([[third]]
# CHECK-LABEL: def epilogue(
# CHECK: R.call_tir(cls.fused_matmul{{[0-9]*}}_add_relu, (x, w, b)
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
    def deep(x: R.Tensor((3, 8), "float32"), w: R.Tensor((8, 8), "float32")):
        with R.dataflow():
            p = R.matmul(x, w)
            e = R.exp(p)
            t = R.tanh(e)
            s = R.sigmoid(t)
            c = R.cos(s)
            R.output(c)
        return c

    @R.function
    def two_products(x: R.Tensor((3, 8), "float32"), w: R.Tensor((8, 8), "float32")):
        with R.dataflow():
            s = R.matmul(x, w)
            t = R.matmul(s, w)
            R.output(t)
        return t
