# RUN: %dscc opt -p 'fold-constants{limit_bytes=100}' --remarks %s | filecheck %s

# CHECK: refused at %wide (broadcast_to): the constant would take 4000 bytes

@I.ir_module
class Module:
    # CHECK-LABEL: def chain(
    # CHECK: R.add(x, {{.*}})
    # CHECK-NEXT: R.output
    @R.function
    def chain(x: R.Tensor(("n", 4), "float32")):
        n = T.int64()
        with R.dataflow():
            a = R.exp(R.const([1.0, 2.0, 3.0, 4.0], "float32"))
            b = R.multiply(a, R.const([0.5], "float32"))
            c = R.reshape(b, R.shape([2, 2]))
            d = R.permute_dims(c, [1, 0])
            e = R.strided_slice(d, [1], [1], [-9], [-1])
            f = R.concat((e, R.const([[2.0, 1.0]], "float32")), axis=0)
            g = R.sum(f, axis=[0], keepdims=True)
            h = R.take(g, R.const([0, 1, 1, 0], "int64"), axis=1)
            i = R.divide(h, R.const(3.0, "float32"))
            out = R.add(x, i)
            R.output(out)
        return out

    # CHECK-LABEL: def deviations(
    # CHECK-NOT: R.variance
    # CHECK-NOT: R.std
    # CHECK: R.add(x
    @R.function
    def deviations(x: R.Tensor((2,), "float32")):
        with R.dataflow():
            w = R.const([[1.0, 2.0, 3.0], [4.0, 4.0, 4.0]], "float32")
            a = R.divide(R.variance(w, axis=[1]), R.std(w, axis=[0, 1]))
            out = R.add(x, a)
            R.output(out)
        return out

    # CHECK-LABEL: def integers(
    # CHECK-NOT: R.divide
    # CHECK: R.add
    @R.function
    def integers(x: R.Tensor((6,), "int64")):
        with R.dataflow():
            a = R.divide(R.const([-7, 7, -7, 7, 6, 0], "int64"), R.const([2, 2, -2, -2, 3, 5], "int64"))
            b = R.astype(R.arange(6), "int64")
            c = R.where(R.less(b, R.const(3, "int64")), a, b)
            out = R.add(x, c)
            R.output(out)
        return out

    # CHECK-LABEL: def open_shape(
    # CHECK: R.broadcast_to
    @R.function
    def open_shape(x: R.Tensor(("n", 4), "float32")):
        n = T.int64()
        with R.dataflow():
            a = R.broadcast_to(R.const([1.0, 2.0, 3.0, 4.0], "float32"), R.shape([n, 4]))
            out = R.add(x, a)
            R.output(out)
        return out

    # CHECK-LABEL: def parts(
    # CHECK-NOT: R.split
    # CHECK: R.add
    @R.function
    def parts(x: R.Tensor((1, 2), "float32")):
        with R.dataflow():
            a = R.split(R.const([[1.0, 2.0, 3.0, 4.0]], "float32"), 2, axis=1)
            b = a[0]
            c = a[1]
            d = R.subtract(c, b)
            out = R.add(x, d)
            R.output(out)
        return out

    # CHECK-LABEL: def too_large(
    # CHECK: R.broadcast_to
    @R.function
    def too_large(x: R.Tensor((1000,), "float32")):
        with R.dataflow():
            wide = R.broadcast_to(R.const([1.0], "float32"), R.shape([1000]))
            out = R.add(x, wide)
            R.output(out)
        return out
