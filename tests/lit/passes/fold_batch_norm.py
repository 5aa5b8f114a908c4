# RUN: %dscc opt -p fold-batch-norm --remarks %s | filecheck %s

# CHECK-DAG: refused at %shifted (add): %out (nn.conv2d) pads its input with zeros without the offset
# CHECK-DAG: refused at %scaled (multiply): %conv (nn.conv2d) has a second user

@I.ir_module
class Module:
    # CHECK-LABEL: def after_convolution(
    # CHECK: [[conv:%\w+|\w+]]: R.Tensor{{.*}} = R.nn.conv2d(
    # CHECK-NEXT: R.add([[conv]], metadata
    # CHECK-NEXT: R.output
    @R.function
    def after_convolution(x: R.Tensor(("n", 2, "h", "w"), "float32")):
        n, h, w = T.int64(), T.int64(), T.int64()
        with R.dataflow():
            conv = R.nn.conv2d(x, R.const([[[[1.0]], [[2.0]]], [[[3.0]], [[-1.0]]]], "float32"))
            norm = R.nn.batch_norm(
                conv, R.const([1.5, 0.5], "float32"), R.const([0.25, 1.0], "float32"), R.const([0.5, -1.0], "float32"),
                R.const([2.0, 0.7], "float32"), axis=1, epsilon=0.001, training=False)
            out = norm[0]
            R.output(out)
        return out

    # CHECK-LABEL: def alone(
    # CHECK-NOT: batch_norm
    # CHECK: R.multiply(
    # CHECK: R.add(
    @R.function
    def alone(x: R.Tensor((3, 2, 4, 5), "float32")):
        with R.dataflow():
            norm = R.nn.batch_norm(
                x, R.const([1.5, 0.5], "float32"), R.const([0.25, 1.0], "float32"), R.const([0.5, -1.0], "float32"),
                R.const([2.0, 0.7], "float32"), axis=1, epsilon=0.001, training=False)
            out = norm[0]
            R.output(out)
        return out

    # CHECK-LABEL: def before_convolution(
    # CHECK-NOT: R.multiply
    # CHECK: R.nn.conv2d(x,
    # CHECK-NEXT: R.add
    # CHECK-NEXT: R.output
    @R.function
    def before_convolution(x: R.Tensor(("n", 4, 3, 3), "float32")):
        n = T.int64()
        with R.dataflow():
            scaled = R.multiply(x, R.const([[[1.0]], [[2.0]], [[-0.5]], [[3.0]]], "float32"))
            shifted = R.add(scaled, R.const([[[0.5]], [[0.1]], [[0.2]], [[0.3]]], "float32"))
            out = R.nn.conv2d(shifted, R.const([[[[1.0]], [[2.0]]], [[[3.0]], [[-1.0]]]], "float32"), groups=2)
            R.output(out)
        return out

    # CHECK-LABEL: def chain(
    # CHECK: R.nn.conv2d(
    # CHECK-NEXT: R.add(
    # CHECK-NEXT: R.nn.relu(
    @R.function
    def chain(x: R.Tensor((1, 2, 5, 5), "float32")):
        with R.dataflow():
            conv = R.nn.conv2d(x, R.const([[[[1.0]]], [[[3.0]]]], "float32"), groups=2)
            bias = R.add(conv, R.const([[[[1.0]], [[2.0]]]], "float32"))
            scaled = R.multiply(R.const(2.5, "float32"), bias)
            shifted = R.subtract(scaled, R.const([[[0.5]], [[0.1]]], "float32"))
            halved = R.divide(shifted, R.const([3.0], "float32"))
            out = R.nn.relu(halved)
            R.output(out)
        return out

    # CHECK-LABEL: def matrix(
    # CHECK: R.matmul(
    # CHECK-NEXT: R.add(
    # CHECK-NEXT: R.output
    @R.function
    def matrix(x: R.Tensor(("n", "t", 3), "float32")):
        n, t = T.int64(), T.int64()
        with R.dataflow():
            shifted = R.subtract(x, R.const([1.0, 2.0, 3.0], "float32"))
            product = R.matmul(shifted, R.const([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], "float32"))
            out = R.multiply(product, R.const([0.5, -2.0], "float32"))
            R.output(out)
        return out

    # CHECK-LABEL: def padded_offset(
    # CHECK: R.add(
    # CHECK: R.nn.conv2d(
    @R.function
    def padded_offset(x: R.Tensor((1, 2, 5, 5), "float32")):
        with R.dataflow():
            shifted = R.add(x, R.const([[[0.5]], [[0.1]]], "float32"))
            out = R.nn.conv2d(shifted, R.const([[[[1.0]]], [[[3.0]]]], "float32"), groups=2, padding=(1, 1))
            R.output(out)
        return out

    # CHECK-LABEL: def second_user(
    # CHECK: R.nn.conv2d(
    # CHECK: R.multiply(
    @R.function
    def second_user(x: R.Tensor((1, 2, 5, 5), "float32")):
        with R.dataflow():
            conv = R.nn.conv2d(x, R.const([[[[1.0]]], [[[3.0]]]], "float32"), groups=2)
            scaled = R.multiply(conv, R.const(2.5, "float32"))
            out = R.add(scaled, conv)
            R.output(out)
        return out

    # CHECK-LABEL: def transposed(
    # CHECK: R.nn.conv2d_transpose(
    # CHECK-NEXT: R.output
    @R.function
    def transposed(x: R.Tensor((1, 4, "h", 5), "float32")):
        h = T.int64()
        with R.dataflow():
            scaled_in = R.multiply(x, R.const([[[1.0]], [[2.0]], [[-0.5]], [[3.0]]], "float32"))
            conv = R.nn.conv2d_transpose(
                scaled_in, R.const([[[[1.0, 2.0]]], [[[3.0, 1.0]]], [[[4.0, 2.0]]], [[[-1.0, 1.0]]]], "float32"),
                groups=2, strides=(1, 2))
            out = R.multiply(conv, R.const([[[0.5]], [[-2.0]]], "float32"))
            R.output(out)
        return out
