# RUN: %dscc opt -p fuse-layer-norm --remarks %s | filecheck %s

# CHECK-DAG: refused at %normal (divide): %centred (subtract) is also read by %out (add)
# CHECK-DAG: refused at %out (divide): mean and variance are not over the same axes
# CHECK-DAG: refused at %out (multiply): %y does not have the shape of the normalised axes

@I.ir_module
class Module:
    # CHECK-LABEL: def channels(
    # CHECK: R.nn.layer_norm(x, {{.*}}axes=[1]
    # CHECK-NEXT: R.output
    @R.function
    def channels(x: R.Tensor(("n", 3, "h", "w"), "float32")):
        n, h, w = T.int64(), T.int64(), T.int64()
        with R.dataflow():
            centred = R.subtract(x, R.mean(x, axis=[1], keepdims=True))
            variance = R.mean(R.multiply(centred, centred), axis=[1], keepdims=True)
            normal = R.multiply(centred, R.rsqrt(R.add(variance, R.const(1e-5, "float32"))))
            scaled = R.multiply(normal, R.const([[[1.0]], [[2.0]], [[3.0]]], "float32"))
            out = R.add(scaled, R.const([[[0.5]], [[0.1]], [[0.2]]], "float32"))
            R.output(out)
        return out

    # CHECK-LABEL: def open_parameter(
    # CHECK: R.nn.layer_norm(x, y,
    # CHECK-NEXT: R.output
    @R.function
    def open_parameter(x: R.Tensor(("n", 3), "float32"), y: R.Tensor((3,), "float32")):
        n = T.int64()
        with R.dataflow():
            centred = R.subtract(x, R.mean(x, axis=[-1], keepdims=True))
            variance = R.mean(R.multiply(centred, centred), axis=[-1], keepdims=True)
            normal = R.divide(centred, R.sqrt(R.add(variance, R.const(1e-5, "float32"))))
            out = R.multiply(normal, y)
            R.output(out)
        return out

    # CHECK-LABEL: def other_axes(
    # CHECK-NOT: layer_norm
    # CHECK: return
    @R.function
    def other_axes(x: R.Tensor((2, 3, 4), "float32")):
        with R.dataflow():
            centred = R.subtract(x, R.mean(x, axis=[-1], keepdims=True))
            variance = R.mean(R.multiply(centred, centred), axis=[1, 2], keepdims=True)
            out = R.divide(centred, R.sqrt(R.add(variance, R.const(1e-5, "float32"))))
            R.output(out)
        return out

    # CHECK-LABEL: def per_row(
    # CHECK: R.nn.layer_norm
    # CHECK-NEXT: R.multiply
    @R.function
    def per_row(x: R.Tensor((2, 3), "float32"), y: R.Tensor((2, 1), "float32")):
        with R.dataflow():
            centred = R.subtract(x, R.mean(x, axis=[-1], keepdims=True))
            variance = R.mean(R.multiply(centred, centred), axis=[1], keepdims=True)
            normal = R.divide(centred, R.sqrt(R.add(variance, R.const(1e-5, "float32"))))
            out = R.multiply(normal, y)
            R.output(out)
        return out

    # CHECK-LABEL: def rows(
    # CHECK: R.nn.layer_norm(x, {{.*}}axes=[2], epsilon=0.00
    # CHECK-NEXT: R.output
    @R.function
    def rows(x: R.Tensor(("n", "t", 4), "float32")):
        n, t = T.int64(), T.int64()
        with R.dataflow():
            centred = R.subtract(x, R.mean(x, axis=[-1], keepdims=True))
            variance = R.mean(R.power(centred, R.const(2.0, "float32")), axis=[-1], keepdims=True)
            normal = R.divide(centred, R.sqrt(R.add(variance, R.const(0.001, "float32"))))
            scaled = R.multiply(normal, R.const([1.0, 2.0, 3.0, 4.0], "float32"))
            out = R.add(scaled, R.const([0.5, 0.1, 0.2, 0.3], "float32"))
            R.output(out)
        return out

    # CHECK-LABEL: def second_user(
    # CHECK-NOT: layer_norm
    # CHECK: return
    @R.function
    def second_user(x: R.Tensor((2, 3, 4), "float32")):
        with R.dataflow():
            centred = R.subtract(x, R.mean(x, axis=[-1], keepdims=True))
            variance = R.mean(R.multiply(centred, centred), axis=[-1], keepdims=True)
            normal = R.divide(centred, R.sqrt(R.add(variance, R.const(1e-5, "float32"))))
            out = R.add(normal, centred)
            R.output(out)
        return out
