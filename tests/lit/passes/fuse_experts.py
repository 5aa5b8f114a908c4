# RUN: %dscc opt -p fold-constants,fuse-experts,eliminate-dead-code --remarks %s | filecheck %s

# CHECK-DAG: applied at %y
# CHECK-DAG: refused at %norm (sum): it is not known how this continues the experts of ids
# CHECK-DAG: refused at %{{.*}} (matmul): it is not known how this continues the experts of chosen

# CHECK-LABEL: def chosen(
# CHECK: R.topk
# CHECK-NOT: R.take
# CHECK: R.call_tir({{.*}}experts
# CHECK: return

# CHECK-LABEL: def normalised_in_between(
# CHECK: R.take
# CHECK-NOT: experts
# CHECK: return

# CHECK-LABEL: def other_choice(
# CHECK: R.take
# CHECK-NOT: experts
# CHECK: return

# CHECK-LABEL: def second_user(
# CHECK: R.take
# CHECK: R.call_tir({{.*}}experts
# CHECK: return


@I.ir_module
class Module:
    @R.function
    def chosen(x: R.Tensor(("n", 6), "float32"), scores: R.Tensor(("n", 4), "float32")):
        n = T.int64()
        with R.dataflow():
            w1 = R.sin(R.reshape(R.arange(0, 120, 1, dtype="float32"), (4, 5, 6)))
            w2 = R.sin(R.reshape(R.arange(0, 120, 1, dtype="float32"), (4, 6, 5)))
            best = R.topk(scores, k=2, axis=1, ret_type="both", largest=True, dtype="int64")
            shares = best[0]
            ids = best[1]
            at = R.reshape(ids, (n * 2,))
            rows = R.reshape(R.broadcast_to(R.reshape(x, (n, 1, 6)), (n, 2, 6)), (n * 2, 6, 1))
            h = R.nn.relu(R.matmul(R.take(w1, at, axis=0), rows))
            out = R.reshape(R.matmul(R.take(w2, at, axis=0), h), (n * 2, 6))
            weighted = R.multiply(out, R.reshape(shares, (n * 2, 1)))
            y = R.sum(R.reshape(weighted, (n, 2, 6)), axis=[1])
            R.output(y)
        return y

    @R.function
    def normalised_in_between(x: R.Tensor(("n", 6), "float32"), scores: R.Tensor(("n", 4), "float32")):
        n = T.int64()
        with R.dataflow():
            w1 = R.sin(R.reshape(R.arange(0, 120, 1, dtype="float32"), (4, 5, 6)))
            w2 = R.sin(R.reshape(R.arange(0, 120, 1, dtype="float32"), (4, 6, 5)))
            best = R.topk(scores, k=2, axis=1, ret_type="both", largest=True, dtype="int64")
            shares = best[0]
            ids = best[1]
            at = R.reshape(ids, (n * 2,))
            rows = R.reshape(R.broadcast_to(R.reshape(x, (n, 1, 6)), (n, 2, 6)), (n * 2, 6, 1))
            h = R.nn.relu(R.matmul(R.take(w1, at, axis=0), rows))
            out = R.reshape(R.matmul(R.take(w2, at, axis=0), h), (n * 2, 6))
            norm = R.sum(R.multiply(out, out), axis=[1], keepdims=True)
            scaled = R.divide(out, R.sqrt(R.add(norm, R.const(1.0, "float32"))))
            weighted = R.multiply(scaled, R.reshape(shares, (n * 2, 1)))
            y = R.sum(R.reshape(weighted, (n, 2, 6)), axis=[1])
            R.output(y)
        return y

    @R.function
    def other_choice(
        x: R.Tensor(("n", 6), "float32"), scores: R.Tensor(("n", 4), "float32"), ids: R.Tensor(("n", 2), "int64")
    ):
        n = T.int64()
        with R.dataflow():
            w1 = R.sin(R.reshape(R.arange(0, 120, 1, dtype="float32"), (4, 5, 6)))
            w2 = R.sin(R.reshape(R.arange(0, 120, 1, dtype="float32"), (4, 6, 5)))
            best = R.topk(scores, k=2, axis=1, ret_type="both", largest=True, dtype="int64")
            shares = best[0]
            chosen = best[1]
            at = R.reshape(chosen, (n * 2,))
            other = R.reshape(ids, (n * 2,))
            rows = R.reshape(R.broadcast_to(R.reshape(x, (n, 1, 6)), (n, 2, 6)), (n * 2, 6, 1))
            h = R.nn.relu(R.matmul(R.take(w1, at, axis=0), rows))
            out = R.reshape(R.matmul(R.take(w2, other, axis=0), h), (n * 2, 6))
            weighted = R.multiply(out, R.reshape(shares, (n * 2, 1)))
            y = R.sum(R.reshape(weighted, (n, 2, 6)), axis=[1])
            R.output(y)
        return y

    @R.function
    def second_user(x: R.Tensor(("n", 6), "float32"), scores: R.Tensor(("n", 4), "float32")):
        n = T.int64()
        with R.dataflow():
            w1 = R.sin(R.reshape(R.arange(0, 120, 1, dtype="float32"), (4, 5, 6)))
            w2 = R.sin(R.reshape(R.arange(0, 120, 1, dtype="float32"), (4, 6, 5)))
            best = R.topk(scores, k=2, axis=1, ret_type="both", largest=True, dtype="int64")
            shares = best[0]
            ids = best[1]
            at = R.reshape(ids, (n * 2,))
            rows = R.reshape(R.broadcast_to(R.reshape(x, (n, 1, 6)), (n, 2, 6)), (n * 2, 6, 1))
            h = R.nn.relu(R.matmul(R.take(w1, at, axis=0), rows))
            out = R.reshape(R.matmul(R.take(w2, at, axis=0), h), (n * 2, 6))
            weighted = R.multiply(out, R.reshape(shares, (n * 2, 1)))
            y = R.sum(R.reshape(weighted, (n, 2, 6)), axis=[1])
            both = R.add(R.sum(h), y)
            R.output(both)
        return both
