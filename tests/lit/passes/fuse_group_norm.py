# RUN: %dscc opt -p fuse-group-norm,channels-last --remarks %s | filecheck %s

# CHECK-DAG: refused at %out (reshape): the reshape is not to (batch, groups, rest)
# CHECK-DAG: refused at %back (reshape): %normal (nn.instance_norm) is also read by %out (add)

@I.ir_module
class Module:
    # CHECK-LABEL: def groups(
    # CHECK: R.nn.group_norm({{.*}}num_groups=2, channel_axis=3, axes=[1, 2]
    # CHECK-NEXT: R.mean(
    # CHECK-NEXT: R.output
    @R.function
    def groups(x: R.Tensor(("n", 1, "h", "w"), "float32")):
        n, h, w = T.int64(), T.int64(), T.int64()
        with R.dataflow():
            conv = R.nn.conv2d(x, R.const([[[[1.0]]], [[[3.0]]], [[[2.0]]], [[[-3.0]]]], "float32"))
            split = R.reshape(conv, R.shape([n, 2, 2 * h * w]))
            normal = R.nn.instance_norm(split, R.const([1.0, 2.0], "float32"), R.const([0.5, 0.0], "float32"), channel_axis=1, axes=[2])
            back = R.reshape(normal, R.shape([n, 4, h, w]))
            scaled = R.multiply(back, R.const([[[1.0]], [[2.0]], [[3.0]], [[4.0]]], "float32"))
            shifted = R.add(scaled, R.const([[[0.5]], [[0.1]], [[0.2]], [[0.3]]], "float32"))
            out = R.mean(shifted, axis=[2, 3])
            R.output(out)
        return out

    # CHECK-LABEL: def other_shape(
    # CHECK: R.nn.instance_norm
    @R.function
    def other_shape(x: R.Tensor((2, 4, 3, 5), "float32")):
        with R.dataflow():
            split = R.reshape(x, R.shape([2, 4, 5, 3]))
            normal = R.nn.instance_norm(split, R.const([1.0, 2.0, 1.0, 1.0], "float32"), R.const([0.5, 0.0, 0.0, 0.0], "float32"), channel_axis=1, axes=[2])
            out = R.reshape(normal, R.shape([2, 4, 3, 5]))
            R.output(out)
        return out

    # CHECK-LABEL: def second_user(
    # CHECK: R.nn.instance_norm
    @R.function
    def second_user(x: R.Tensor((2, 4, 3, 5), "float32")):
        with R.dataflow():
            split = R.reshape(x, R.shape([2, 2, 30]))
            normal = R.nn.instance_norm(split, R.const([1.0, 2.0], "float32"), R.const([0.5, 0.0], "float32"), channel_axis=1, axes=[2])
            back = R.reshape(normal, R.shape([2, 4, 3, 5]))
            flat = R.reshape(back, R.shape([2, 2, 30]))
            out = R.add(flat, normal)
            R.output(out)
        return out
