# RUN: %dscc opt -p fuse-gelu-tanh --remarks %s | filecheck %s

# CHECK-DAG: refused at %out (multiply): expected 0.04471, found 0.05
# CHECK-DAG: refused at %half (multiply): %bent (tanh) is also read by %out (add)

@I.ir_module
class Module:
    # CHECK-LABEL: def forms(
    # CHECK: R.nn.gelu_tanh(x)
    # CHECK-NEXT: R.nn.gelu_tanh(
    # CHECK-NEXT: R.output
    @R.function
    def forms(x: R.Tensor(("n", "t", 8), "float32")):
        n, t = T.int64(), T.int64()
        with R.dataflow():
            a1 = R.multiply(R.const(0.044715, "float32"), R.power(x, R.const(3.0, "float32")))
            a2 = R.tanh(R.multiply(R.const(0.7978846, "float32"), R.add(x, a1)))
            a3 = R.add(R.const(1.0, "float32"), a2)
            a = R.multiply(R.multiply(R.const(0.5, "float32"), x), a3)
            b1 = R.multiply(a, R.multiply(R.multiply(R.const(0.044715, "float32"), a), a))
            b2 = R.tanh(R.multiply(R.add(a, b1), R.const(0.7978846, "float32")))
            out = R.multiply(R.multiply(a, R.add(b2, R.const(1.0, "float32"))), R.const(0.5, "float32"))
            R.output(out)
        return out

    # CHECK-LABEL: def other_bend(
    # CHECK: R.tanh
    @R.function
    def other_bend(x: R.Tensor((2, 8), "float32")):
        with R.dataflow():
            cube = R.multiply(R.const(0.05, "float32"), R.power(x, R.const(3.0, "float32")))
            bent = R.tanh(R.multiply(R.const(0.7978846, "float32"), R.add(x, cube)))
            out = R.multiply(R.multiply(R.const(0.5, "float32"), x), R.add(R.const(1.0, "float32"), bent))
            R.output(out)
        return out

    # CHECK-LABEL: def second_user(
    # CHECK: R.tanh
    @R.function
    def second_user(x: R.Tensor((2, 8), "float32")):
        with R.dataflow():
            cube = R.multiply(R.const(0.044715, "float32"), R.power(x, R.const(3.0, "float32")))
            bent = R.tanh(R.multiply(R.const(0.7978846, "float32"), R.add(x, cube)))
            half = R.multiply(R.multiply(R.const(0.5, "float32"), x), R.add(R.const(1.0, "float32"), bent))
            out = R.add(half, bent)
            R.output(out)
        return out
