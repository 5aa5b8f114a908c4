# RUN: %dscc opt -p simplify-arithmetic %s | filecheck %s

@I.ir_module
class Module:
    # CHECK-LABEL: def clips(
    # CHECK: R.clip(x, {{.*}}0{{.*}}, {{.*}}6{{.*}})
    # CHECK-NEXT: R.output
    @R.function
    def clips(x: R.Tensor(("n", 4), "float32")):
        n = T.int64()
        with R.dataflow():
            a = R.maximum(x, R.const(-1.0, "float32"))
            b = R.minimum(a, R.const(6.0, "float32"))
            c = R.maximum(b, R.const(0.0, "float32"))
            out = R.clip(c, 0.0, 7.0)
            R.output(out)
        return out

    # CHECK-LABEL: def grows(
    # CHECK: R.multiply(x,
    # CHECK: R.add(
    @R.function
    def grows(x: R.Tensor((1, 4), "float32"), i: R.Tensor((1, 4), "int32")):
        with R.dataflow():
            a = R.multiply(x, R.const([[1.0], [1.0]], "float32"))
            b = R.add(R.const([[0], [0], [0]], "int32"), i)
            out = (a, b)
            R.output(out)
        return out

    # CHECK-LABEL: def mean(
    # CHECK: R.mean(x, axis=[1], keepdims=False)
    # CHECK-NEXT: R.output
    @R.function
    def mean(x: R.Tensor(("n", 4), "float32")):
        n = T.int64()
        with R.dataflow():
            a = R.sum(x, axis=[1])
            out = R.divide(a, R.const(4.0, "float32"))
            R.output(out)
        return out

    # CHECK-LABEL: def merged(
    # CHECK: R.add(x,
    # CHECK-NEXT: R.output
    @R.function
    def merged(x: R.Tensor(("n", 4), "float32")):
        n = T.int64()
        with R.dataflow():
            a = R.add(x, R.const([1.0, 2.0, 3.0, 4.0], "float32"))
            b = R.subtract(a, R.const(0.5, "float32"))
            c = R.multiply(b, R.const(1.0, "float32"))
            d = R.divide(c, R.const([1.0], "float32"))
            out = R.power(d, R.const(1.0, "float32"))
            R.output(out)
        return out

    # CHECK-LABEL: def second_user(
    # CHECK: R.add
    # CHECK: R.add
    # CHECK: R.subtract
    @R.function
    def second_user(x: R.Tensor((3, 4), "float32")):
        with R.dataflow():
            a = R.add(x, R.const(1.0, "float32"))
            b = R.add(a, R.const(2.0, "float32"))
            out = R.subtract(a, b)
            R.output(out)
        return out

    # CHECK-LABEL: def strength(
    # CHECK-NOT: R.divide(x
    # CHECK: R.multiply(x, {{.*}}0.25
    # CHECK-NOT: R.power
    # CHECK: R.rsqrt
    @R.function
    def strength(x: R.Tensor(("n", 4), "float32")):
        n = T.int64()
        with R.dataflow():
            a = R.divide(x, R.const(4.0, "float32"))
            b = R.power(a, R.const(2.0, "float32"))
            c = R.add(b, R.const(0.1, "float32"))
            d = R.power(c, R.const(0.5, "float32"))
            out = R.divide(R.const(1.0, "float32"), d)
            R.output(out)
        return out
