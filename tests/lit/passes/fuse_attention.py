# RUN: %dscc opt -p fuse-attention,simplify-shapes --remarks %s | filecheck %s

# CHECK-DAG: refused at %out (matmul): %p (nn.softmax) is not over the last axis
# CHECK-DAG: refused at %product (matmul): %scores (matmul) has a second user
# CHECK-DAG: refused at %out (matmul): %gate (sigmoid) is between the product and the softmax

@I.ir_module
class Module:
    # CHECK-LABEL: def gated(
    # CHECK-NOT: attention
    # CHECK: return
    @R.function
    def gated(q: R.Tensor((2, 3, 5, 4), "float32"), k: R.Tensor((2, 3, 4, 5), "float32"), v: R.Tensor((2, 3, 5, 4), "float32")):
        with R.dataflow():
            gate = R.sigmoid(R.matmul(q, k))
            out = R.matmul(R.nn.softmax(gate), v)
            R.output(out)
        return out

    # CHECK-LABEL: def guarded(
    # CHECK: R.nn.attention_bias(
    # CHECK-NOT: R.nn.softmax
    # CHECK: R.isnan
    # CHECK: R.where
    @R.function
    def guarded(
        q: R.Tensor((2, 3, 5, 4), "float32"), k: R.Tensor((2, 3, 4, 6), "float32"), v: R.Tensor((2, 3, 6, 4), "float32"),
        seen: R.Tensor((2, 1, 5, 6), "bool")):
        with R.dataflow():
            mask = R.where(seen, R.const(0.0, "float32"), R.const(-1e30, "float32"))
            p = R.nn.softmax(R.add(R.matmul(q, k), mask))
            out = R.matmul(R.where(R.isnan(p), R.const(0.0, "float32"), p), v)
            R.output(out)
        return out

    # CHECK-LABEL: def heads(
    # CHECK: [[q:\w+]]: {{.*}} = R.reshape(x,
    # CHECK: [[k:\w+]]: {{.*}} = R.reshape(y,
    # CHECK: [[v:\w+]]: {{.*}} = R.reshape(z,
    # CHECK-NEXT: R.nn.attention_bias([[q]], [[k]], [[v]], mask, scale={{.*}}0.5
    # CHECK-NEXT: R.reshape(
    # CHECK-NEXT: R.output
    @R.function
    def heads(
        x: R.Tensor(("n", "t", 12), "float32"), y: R.Tensor(("n", "s", 12), "float32"), z: R.Tensor(("n", "s", 12), "float32"),
        mask: R.Tensor(("n", 1, 1, "s"), "float32")):
        n, t, s = T.int64(), T.int64(), T.int64()
        with R.dataflow():
            q = R.permute_dims(R.reshape(x, R.shape([n, t, 3, 4])), [0, 2, 1, 3])
            k = R.permute_dims(R.reshape(y, R.shape([n, s, 3, 4])), [0, 2, 3, 1])
            v = R.permute_dims(R.reshape(z, R.shape([n, s, 3, 4])), [0, 2, 1, 3])
            scores = R.divide(R.matmul(q, k), R.const(2.0, "float32"))
            p = R.nn.softmax(R.add(scores, mask), axis=-1)
            out = R.reshape(R.permute_dims(R.matmul(p, v), [0, 2, 1, 3]), R.shape([n, t, 12]))
            R.output(out)
        return out

    # CHECK-LABEL: def one_head(
    # CHECK: R.nn.attention_bias({{.*}}scale={{.*}}0.25
    # CHECK-NEXT: R.reshape
    # CHECK-NEXT: R.output
    @R.function
    def one_head(
        q: R.Tensor(("n", "t", 4), "float32"), k: R.Tensor(("n", "s", 4), "float32"), v: R.Tensor(("n", "s", 6), "float32"),
        mask: R.Tensor(("t", "s"), "float32")):
        n, t, s = T.int64(), T.int64(), T.int64()
        with R.dataflow():
            q2 = R.multiply(q, R.const(0.5, "float32"))
            k2 = R.multiply(R.permute_dims(k, [0, 2, 1]), R.const(0.25, "float32"))
            scores = R.multiply(R.add(mask, R.matmul(q2, k2)), R.const(2.0, "float32"))
            out = R.matmul(R.nn.softmax(scores, axis=2), v)
            R.output(out)
        return out

    # CHECK-LABEL: def other_axis(
    # CHECK-NOT: attention
    # CHECK: return
    @R.function
    def other_axis(q: R.Tensor((2, 3, 5, 4), "float32"), k: R.Tensor((2, 3, 4, 5), "float32"), v: R.Tensor((2, 3, 5, 4), "float32")):
        with R.dataflow():
            p = R.nn.softmax(R.matmul(q, k), axis=2)
            out = R.matmul(p, v)
            R.output(out)
        return out

    # CHECK-LABEL: def second_user(
    # CHECK-NOT: attention
    # CHECK: return
    @R.function
    def second_user(q: R.Tensor((2, 3, 5, 4), "float32"), k: R.Tensor((2, 3, 4, 5), "float32"), v: R.Tensor((2, 3, 5, 4), "float32")):
        with R.dataflow():
            scores = R.matmul(q, k)
            product = R.matmul(R.nn.softmax(scores), v)
            out = (product, scores)
            R.output(out)
        return out
