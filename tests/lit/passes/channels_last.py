# RUN: %dscc opt -p channels-last %s | filecheck %s

@I.ir_module
class Module:
    # CHECK-LABEL: def attention_like(
    # CHECK-COUNT-1: R.permute_dims
    # CHECK-NOT: R.permute_dims
    # CHECK: R.matmul
    @R.function
    def attention_like(x: R.Tensor(("n", 2, "h", 6), "float32")):
        n, h = T.int64(), T.int64()
        with R.dataflow():
            conv = R.nn.conv2d(x, R.const([[[[1.0]], [[2.0]]], [[[3.0]], [[-1.0]]], [[[0.5]], [[1.5]]]], "float32"))
            flat = R.reshape(conv, R.shape([n, 3, h * 6]))
            rows = R.permute_dims(flat, [0, 2, 1])
            out = R.matmul(rows, R.const([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], "float32"))
            R.output(out)
        return out

    # CHECK-LABEL: def checked(
    # CHECK-COUNT-1: R.permute_dims
    # CHECK-NOT: R.permute_dims
    # CHECK: return
    @R.function
    def checked(x: R.Tensor(("n", 2, "h", "w"), "float32")):
        n, h, w = T.int64(), T.int64(), T.int64()
        with R.dataflow():
            pool = R.nn.max_pool2d(x, pool_size=[2, 1], strides=[8, 1])
            height = R.match_cast(R.shape([(h - 2) // 8 + 1, w]), R.Shape([1, w]))
            line = R.reshape(pool, R.shape([n, 2, w]))
            rows = R.permute_dims(line, [0, 2, 1])
            out = R.matmul(rows, R.const([[1.0, 2.0], [3.0, 4.0]], "float32"))
            R.output(out)
        return out

    # CHECK-LABEL: def concatenated(
    # CHECK-COUNT-2: R.permute_dims
    # CHECK: R.concat({{.*}}, axis=3)
    # CHECK: R.permute_dims
    # CHECK-NOT: R.permute_dims
    # CHECK: return
    @R.function
    def concatenated(x: R.Tensor(("n", 3, "h", "w"), "float32"), y: R.Tensor(("n", 2, "h", "w"), "float32")):
        n, h, w = T.int64(), T.int64(), T.int64()
        with R.dataflow():
            pool = R.nn.max_pool2d(x, pool_size=[3, 3], padding=[1, 1])
            both = R.concat((pool, y), axis=1)
            shifted = R.add(both, R.const([[[1.0]], [[2.0]], [[3.0]], [[4.0]], [[5.0]]], "float32"))
            padded = R.nn.pad(shifted, (0, 0, 1, 0, 0, 2, 0, 0))
            out = R.strided_slice(padded, [1, 2], [1, 0], [5, 4], [2, 1])
            R.output(out)
        return out

    # CHECK-LABEL: def gray(
    # CHECK-NOT: R.permute_dims
    # CHECK: return
    @R.function
    def gray(x: R.Tensor(("n", 1, "h", "w"), "float32")):
        n, h, w = T.int64(), T.int64(), T.int64()
        with R.dataflow():
            conv = R.nn.conv2d(x, R.const([[[[1.0, 2.0], [0.5, -1.0]]], [[[3.0, 1.0], [2.0, 1.0]]]], "float32"), padding=(1, 1))
            gate = R.nn.softmax(conv, axis=1)
            mean = R.mean(gate, axis=[2, 3])
            top = R.max(gate, axis=[-1, -2], keepdims=True)
            flat = R.reshape(top, R.shape([n, 2]))
            out = R.add(mean, flat)
            R.output(out)
        return out

    # CHECK-LABEL: def halves(
    # CHECK: R.split({{.*}}, axis=3)
    # CHECK: R.permute_dims
    # CHECK-NOT: R.permute_dims
    # CHECK: return
    @R.function
    def halves(x: R.Tensor(("n", 1, "h", "w"), "float32")):
        n, h, w = T.int64(), T.int64(), T.int64()
        with R.dataflow():
            conv = R.nn.conv2d(x, R.const([[[[1.0]]], [[[3.0]]], [[[2.0]]], [[[-3.0]]]], "float32"))
            parts = R.split(conv, 2, axis=1)
            left = parts[0]
            right = parts[1]
            out = R.multiply(left, right)
            R.output(out)
        return out

    # CHECK-LABEL: def one_dimension(
    # CHECK: R.nn.conv2d({{.*}}strides=[1, 2], padding=[0, 1, 0, 2], dilation=[1, 2]{{.*}}data_layout="NHWC", kernel_layout="OHWI"
    # CHECK: R.nn.max_pool2d({{.*}}pool_size=[1, 3]
    # CHECK: R.nn.conv2d_transpose({{.*}}data_layout="NHWC", kernel_layout="IOHW"
    @R.function
    def one_dimension(x: R.Tensor(("n", 2, "l"), "float32")):
        n, l = T.int64(), T.int64()
        with R.dataflow():
            conv = R.nn.conv1d(
                x, R.const([[[1.0, 2.0], [3.0, -4.0]], [[1.0, 0.5], [2.0, 1.0]]], "float32"), strides=2, padding=(1, 2), dilation=2)
            pool = R.nn.max_pool1d(conv, pool_size=[3], strides=[1], padding=[1, 1])
            out = R.nn.conv1d_transpose(
                pool, R.const([[[1.0, 2.0], [3.0, -4.0]], [[1.0, 0.5], [2.0, 1.0]]], "float32"), strides=2)
            R.output(out)
        return out

    # CHECK-LABEL: def permuted_by_hand(
    # CHECK-NOT: R.permute_dims
    # CHECK: return
    @R.function
    def permuted_by_hand(x: R.Tensor(("n", "h", "w", 2), "float32")):
        n, h, w = T.int64(), T.int64(), T.int64()
        with R.dataflow():
            nchw = R.permute_dims(x, [0, 3, 1, 2])
            size = R.image.resize2d(nchw, R.shape([h * 2, w * 2]), method="nearest_neighbor", coordinate_transformation_mode="asymmetric", rounding_method="floor")
            conv = R.nn.conv2d_transpose(size, R.const([[[[1.0, 2.0]]], [[[3.0, 1.0]]]], "float32"), groups=2, strides=(1, 2))
            cast = R.match_cast(conv, R.Tensor((n, 2, h * 2, w * 4), "float32"))
            pool = R.nn.avg_pool2d(cast, pool_size=[2, 2], strides=[2, 2])
            wide = R.broadcast_to(R.mean(pool, axis=[2, 3], keepdims=True), R.shape([n, 2, h, w * 2]))
            out = R.permute_dims(R.nn.relu(wide), [0, 2, 3, 1])
            R.output(out)
        return out

    # CHECK-LABEL: def second_reader(
    # CHECK-COUNT-3: R.permute_dims
    # CHECK-NOT: R.permute_dims
    # CHECK: return
    @R.function
    def second_reader(x: R.Tensor((1, 2, 5, 6), "float32"), y: R.Tensor((6, 3), "float32")):
        with R.dataflow():
            conv = R.nn.conv2d(x, R.const([[[[1.0]], [[2.0]]], [[[3.0]], [[-1.0]]]], "float32"))
            product = R.matmul(conv, y)
            relu = R.nn.relu(conv)
            again = R.nn.conv2d(relu, R.const([[[[1.0]], [[2.0]]], [[[3.0]], [[-1.0]]]], "float32"))
            out = (product, again)
            R.output(out)
        return out

    # CHECK-LABEL: def shuffled(
    # CHECK-COUNT-2: R.permute_dims
    # CHECK-NOT: R.permute_dims
    # CHECK: return
    @R.function
    def shuffled(x: R.Tensor(("n", 1, "h", "w"), "float32")):
        n, h, w = T.int64(), T.int64(), T.int64()
        with R.dataflow():
            conv = R.nn.conv2d(x, R.const([[[[1.0]]], [[[3.0]]], [[[2.0]]], [[[-3.0]]], [[[1.0]]], [[[3.0]]], [[[2.0]]], [[[-3.0]]]], "float32"))
            blocks = R.reshape(conv, R.shape([n, 2, 2, 2, h, w]))
            moved = R.permute_dims(blocks, [0, 3, 4, 1, 5, 2])
            larger = R.reshape(moved, R.shape([n, 2, h * 2, w * 2]))
            out = R.nn.conv2d(larger, R.const([[[[1.0]], [[2.0]]], [[[3.0]], [[-1.0]]]], "float32"))
            R.output(out)
        return out

    # CHECK-LABEL: def untouched(
    # CHECK: R.permute_dims(x, axes=[0, 2, 1])
    # CHECK-NEXT: R.matmul
    @R.function
    def untouched(x: R.Tensor(("n", 4, "t"), "float32")):
        n, t = T.int64(), T.int64()
        with R.dataflow():
            rows = R.permute_dims(x, [0, 2, 1])
            out = R.matmul(rows, R.const([[1.0], [2.0], [3.0], [4.0]], "float32"))
            R.output(out)
        return out
