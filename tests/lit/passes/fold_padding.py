# RUN: %dscc opt -p fold-padding --remarks %s | filecheck %s

# CHECK-DAG: refused at %out (nn.conv2d): %padded (nn.pad): it pads with 1, not 0
# CHECK-DAG: refused at %out (nn.max_pool2d): %padded (nn.pad): it pads with 0, a maximum with the lowest number

@I.ir_module
class Module:
    # CHECK-LABEL: def average(
    # CHECK: R.nn.avg_pool2d(x, {{.*}}padding=[1, 0, 0, 2]{{.*}}count_include_pad=True
    @R.function
    def average(x: R.Tensor((1, 1, "h", 6), "float32")):
        h = T.int64()
        with R.dataflow():
            padded = R.nn.pad(x, (0, 0, 0, 0, 1, 0, 0, 2))
            out = R.nn.avg_pool2d(padded, pool_size=[2, 2])
            R.output(out)
        return out

    # CHECK-LABEL: def convolution(
    # CHECK: R.nn.conv2d(x, {{.*}}padding=[1, 2, 2, 3]
    @R.function
    def convolution(x: R.Tensor(("n", 1, 5, 6), "float32")):
        n = T.int64()
        with R.dataflow():
            padded = R.nn.pad(x, (0, 0, 0, 0, 0, 1, 1, 2))
            out = R.nn.conv2d(padded, R.const([[[[1.0, 2.0], [3.0, 4.0]]]], "float32"), padding=(1, 1))
            R.output(out)
        return out

    # CHECK-LABEL: def maximum(
    # CHECK: R.nn.pad
    @R.function
    def maximum(x: R.Tensor((1, 1, 5, 6), "float32")):
        with R.dataflow():
            padded = R.nn.pad(x, (0, 0, 0, 0, 0, 1, 1, 2))
            out = R.nn.max_pool2d(padded, pool_size=[2, 2])
            R.output(out)
        return out

    # CHECK-LABEL: def second_user(
    # CHECK: R.nn.pad
    # CHECK: R.nn.conv2d(x,
    @R.function
    def second_user(x: R.Tensor((1, 1, 5, 6), "float32")):
        with R.dataflow():
            padded = R.nn.pad(x, (0, 0, 0, 0, 1, 1, 1, 1))
            conv = R.nn.conv2d(padded, R.const([[[[2.0]]]], "float32"))
            out = R.add(conv, padded)
            R.output(out)
        return out

    # CHECK-LABEL: def value(
    # CHECK: R.nn.pad
    @R.function
    def value(x: R.Tensor((1, 1, 5, 6), "float32")):
        with R.dataflow():
            padded = R.nn.pad(x, (0, 0, 0, 0, 0, 1, 1, 2), pad_value=1.0)
            out = R.nn.conv2d(padded, R.const([[[[1.0, 2.0], [3.0, 4.0]]]], "float32"))
            R.output(out)
        return out
