# RUN: %dscc opt -p simplify-shapes %s | filecheck %s

@I.ir_module
class Module:
    # CHECK-LABEL: def idle_permute(
    # CHECK: R.reshape(x, R.shape([n, 1, h, 4]))
    # CHECK-NEXT: R.output
    @R.function
    def idle_permute(x: R.Tensor(("n", "h", 4, 1), "float32")):
        n, h = T.int64(), T.int64()
        with R.dataflow():
            out = R.permute_dims(x, [0, 3, 1, 2])
            R.output(out)
        return out

    # CHECK-LABEL: def joined(
    # CHECK: R.permute_dims(x, axes=[0, 1, 3, 2])
    # CHECK-NEXT: R.output
    @R.function
    def joined(x: R.Tensor(("n", 3, "t", 4), "float32")):
        n, t = T.int64(), T.int64()
        with R.dataflow():
            a = R.reshape(x, R.shape([n * 3, t, 4]))
            b = R.permute_dims(a, [0, 2, 1])
            out = R.reshape(b, R.shape([n, 3, 4, t]))
            R.output(out)
        return out

    # CHECK-LABEL: def nothing(
    # CHECK-NOT: R.reshape
    # CHECK-NOT: R.permute_dims
    # CHECK-NOT: R.concat
    # CHECK-NOT: R.strided_slice
    # CHECK: R.nn.relu(x)
    @R.function
    def nothing(x: R.Tensor(("n", "h", 6), "float32")):
        n, h = T.int64(), T.int64()
        with R.dataflow():
            a = R.reshape(x, R.shape([n, h * 2, 3]))
            b = R.reshape(a, R.shape([n, h, 6]))
            c = R.permute_dims(b, [2, 0, 1])
            d = R.permute_dims(c, [1, 2, 0])
            e = R.concat((d,), axis=0)
            f = R.strided_slice(e, [2], [0], [6])
            g = R.expand_dims(f, 0)
            h1 = R.squeeze(g, [0])
            out = R.nn.relu(h1)
            R.output(out)
        return out

    # CHECK-LABEL: def real_permute(
    # CHECK: R.permute_dims(x, axes=[1, 0, 2])
    @R.function
    def real_permute(x: R.Tensor((3, "h", 1), "float32")):
        h = T.int64()
        with R.dataflow():
            out = R.permute_dims(x, [1, 0, 2])
            R.output(out)
        return out

    # CHECK-LABEL: def reduced(
    # CHECK: R.sum(x, axis=[1], keepdims=True)
    # CHECK-NEXT: R.output
    @R.function
    def reduced(x: R.Tensor((2, "h", 4), "float32")):
        h = T.int64()
        with R.dataflow():
            total = R.sum(x, axis=[1])
            out = R.reshape(total, R.shape([2, 1, 4]))
            R.output(out)
        return out

    # CHECK-LABEL: def second_user(
    # CHECK-DAG: R.permute_dims(x, axes=[1, 2, 0])
    # CHECK-DAG: R.nn.relu(x)
    @R.function
    def second_user(x: R.Tensor((2, 3, 4), "float32")):
        with R.dataflow():
            a = R.permute_dims(x, [1, 2, 0])
            b = R.permute_dims(a, [2, 0, 1])
            c = R.nn.relu(b)
            out = (a, c)
            R.output(out)
        return out
