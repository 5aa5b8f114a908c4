# RUN: %dscc opt -p fuse-gelu --remarks %s | filecheck %s

# CHECK-DAG: refused at %out (multiply): expected 0.7071, found 0.5
# CHECK-DAG: refused at %half (multiply): %gate (add) is also read by %out (add)

@I.ir_module
class Module:
    # CHECK-LABEL: def forms(
    # CHECK: R.nn.gelu(x)
    # CHECK-NEXT: R.nn.gelu(
    # CHECK-NEXT: R.nn.gelu(
    # CHECK-NEXT: R.nn.gelu(
    # CHECK-NEXT: R.output
    @R.function
    def forms(x: R.Tensor(("n", "t", 8), "float32")):
        n, t = T.int64(), T.int64()
        with R.dataflow():
            a1 = R.divide(x, R.const(1.4142135, "float32"))
            a2 = R.add(R.erf(a1), R.const(1.0, "float32"))
            a3 = R.multiply(x, a2)
            a4 = R.multiply(a3, R.const(0.5, "float32"))
            b1 = R.multiply(a4, R.const(0.70710677, "float32"))
            b2 = R.add(R.const(1.0, "float32"), R.erf(b1))
            b3 = R.multiply(b2, R.multiply(a4, R.const(0.5, "float32")))
            c1 = R.multiply(b3, R.const(0.70710677, "float32"))
            c2 = R.add(R.erf(c1), R.const(1.0, "float32"))
            c3 = R.multiply(b3, R.multiply(R.const(0.5, "float32"), c2))
            d1 = R.multiply(c3, R.const([0.70710677], "float32"))
            d2 = R.add(R.erf(d1), R.const(1.0, "float32"))
            d3 = R.multiply(c3, d2)
            out = R.divide(d3, R.const(2.0, "float32"))
            R.output(out)
        return out

    # CHECK-LABEL: def other_root(
    # CHECK: R.erf
    @R.function
    def other_root(x: R.Tensor((2, 8), "float32")):
        with R.dataflow():
            gate = R.add(R.erf(R.multiply(x, R.const(0.5, "float32"))), R.const(1.0, "float32"))
            out = R.multiply(R.multiply(x, gate), R.const(0.5, "float32"))
            R.output(out)
        return out

    # CHECK-LABEL: def second_user(
    # CHECK: R.erf
    @R.function
    def second_user(x: R.Tensor((2, 8), "float32")):
        with R.dataflow():
            gate = R.add(R.erf(R.multiply(x, R.const(0.70710677, "float32"))), R.const(1.0, "float32"))
            half = R.multiply(R.multiply(x, gate), R.const(0.5, "float32"))
            out = R.add(half, gate)
            R.output(out)
        return out
