# RUN: %dscc opt -p fuse-softmax --remarks %s | filecheck %s

# CHECK-DAG: refused at %quotient (divide): %powers (exp) is also read by %out (add)
# CHECK-DAG: refused at %out (divide): %total is not over one axis that it keeps

@I.ir_module
class Module:
    # CHECK-LABEL: def other_axis(
    # CHECK: [[d:\w+]]: {{.*}} = R.subtract(
    # CHECK-NEXT: R.nn.softmax([[d]], axis=2)
    # CHECK-NEXT: R.output
    @R.function
    def other_axis(x: R.Tensor((2, 3, 4), "float32")):
        with R.dataflow():
            top = R.max(x, axis=[1], keepdims=True)
            powers = R.exp(R.subtract(x, top))
            total = R.sum(powers, axis=[2], keepdims=True)
            out = R.divide(powers, total)
            R.output(out)
        return out

    # CHECK-LABEL: def plain(
    # CHECK: R.nn.softmax(x, axis=1)
    # CHECK-NEXT: R.output
    @R.function
    def plain(x: R.Tensor(("n", 3, "t"), "float32")):
        n, t = T.int64(), T.int64()
        with R.dataflow():
            powers = R.exp(x)
            out = R.divide(powers, R.sum(powers, axis=[-2], keepdims=True))
            R.output(out)
        return out

    # CHECK-LABEL: def second_user(
    # CHECK-NOT: softmax
    # CHECK: return
    @R.function
    def second_user(x: R.Tensor((2, 3, 4), "float32")):
        with R.dataflow():
            powers = R.exp(x)
            quotient = R.divide(powers, R.sum(powers, axis=[1], keepdims=True))
            out = R.add(quotient, powers)
            R.output(out)
        return out

    # CHECK-LABEL: def two_axes(
    # CHECK-NOT: softmax
    # CHECK: return
    @R.function
    def two_axes(x: R.Tensor((2, 3, 4), "float32")):
        with R.dataflow():
            powers = R.exp(x)
            total = R.sum(powers, axis=[1, 2], keepdims=True)
            out = R.divide(powers, total)
            R.output(out)
        return out

    # CHECK-LABEL: def with_maximum(
    # CHECK: R.nn.softmax(x, axis=2)
    # CHECK-NEXT: R.output
    @R.function
    def with_maximum(x: R.Tensor(("n", 3, "t"), "float32")):
        n, t = T.int64(), T.int64()
        with R.dataflow():
            powers = R.exp(R.subtract(x, R.max(x, axis=[2], keepdims=True)))
            out = R.divide(powers, R.sum(powers, axis=[2], keepdims=True))
            R.output(out)
        return out
