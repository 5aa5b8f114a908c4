# RUN: %dscc opt -p eliminate-common-subexpressions %s | filecheck %s

@I.ir_module
class Module:
    # CHECK-LABEL: def attributes_differ(
    # CHECK-COUNT-2: R.sum(
    @R.function
    def attributes_differ(x: R.Tensor((3, 4), "float32")):
        with R.dataflow():
            a = R.sum(x, axis=[0])
            b = R.sum(x, axis=[1])
            out = (a, b)
            R.output(out)
        return out

    # CHECK-LABEL: def chain(
    # CHECK: [[a:\w+]]: {{.*}} = R.add(x, R.const(1
    # CHECK-NEXT: [[b:\w+]]: {{.*}} = R.exp([[a]])
    # CHECK-NEXT: R.multiply([[b]], [[b]])
    # CHECK-NEXT: R.output
    @R.function
    def chain(x: R.Tensor(("n", 4), "float32")):
        n = T.int64()
        with R.dataflow():
            a = R.add(x, R.const(1.0, "float32"))
            a2 = R.add(x, R.const(1.0, "float32"))
            b = R.exp(a)
            b2 = R.exp(a2)
            out = R.multiply(b, b2)
            R.output(out)
        return out

    # CHECK-LABEL: def results(
    # CHECK: R.exp(x)
    # CHECK-NOT: R.exp(x)
    # CHECK: R.add
    @R.function
    def results(x: R.Tensor((3, 4), "float32")):
        with R.dataflow():
            a = R.exp(x)
            b = R.exp(x)
            c = R.add(b, x)
            out = (a, b, c)
            R.output(out)
        return out
