# RUN: %dscc opt -p fuse-rms-norm --remarks %s | filecheck %s

# CHECK-DAG: refused at %normal (multiply): %square (multiply) is also read by %out (add)
# CHECK-DAG: refused at %y (multiply): %x is of type float64, and the operator computes in float32
# CHECK-DAG: refused at %out (multiply): the mean is not over the last axes, which it keeps

@I.ir_module
class Module:
    # CHECK-LABEL: def doubles(
    # CHECK-NOT: rms_norm
    # CHECK: return
    @R.function
    def doubles(x: R.Tensor((2, 3, 4), "float64")):
        with R.dataflow():
            mean = R.mean(R.multiply(x, x), axis=[2], keepdims=True)
            y = R.multiply(x, R.rsqrt(R.add(mean, R.const(1e-5, "float64"))))
            R.output(y)
        return y

    # CHECK-LABEL: def other_axis(
    # CHECK-NOT: rms_norm
    # CHECK: return
    @R.function
    def other_axis(x: R.Tensor((2, 3, 4), "float32")):
        with R.dataflow():
            mean = R.mean(R.multiply(x, x), axis=[1], keepdims=True)
            out = R.multiply(x, R.rsqrt(R.add(mean, R.const(1e-5, "float32"))))
            R.output(out)
        return out

    # CHECK-LABEL: def rows(
    # CHECK: [[a:\w+]]: {{.*}} = R.nn.rms_norm(x, {{.*}}axes=[2]
    # CHECK-NEXT: R.nn.rms_norm([[a]],
    # CHECK-NEXT: R.output
    @R.function
    def rows(x: R.Tensor(("n", "t", 4), "float32")):
        n, t = T.int64(), T.int64()
        with R.dataflow():
            mean = R.mean(R.power(x, R.const(2.0, "float32")), axis=[-1], keepdims=True)
            normal = R.multiply(x, R.rsqrt(R.add(mean, R.const(0.001, "float32"))))
            a = R.multiply(R.const([1.0, 2.0, 3.0, 4.0], "float32"), normal)
            mean2 = R.mean(R.multiply(a, a), axis=[2], keepdims=True)
            out = R.divide(a, R.sqrt(R.add(mean2, R.const(0.1, "float32"))))
            R.output(out)
        return out

    # CHECK-LABEL: def second_user(
    # CHECK-NOT: rms_norm
    # CHECK: return
    @R.function
    def second_user(x: R.Tensor((2, 3, 4), "float32")):
        with R.dataflow():
            square = R.multiply(x, x)
            mean = R.mean(square, axis=[2], keepdims=True)
            normal = R.multiply(x, R.rsqrt(R.add(mean, R.const(1e-5, "float32"))))
            out = R.add(normal, square)
            R.output(out)
        return out
