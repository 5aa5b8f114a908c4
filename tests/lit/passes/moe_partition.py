# RUN: %dscc opt -p fold-constants,fuse-experts,moe-partition{devices=3},eliminate-dead-code --remarks %s | filecheck %s
# RUN: %dscc opt -p fold-constants,fuse-experts,moe-partition{devices=3,device=2},eliminate-dead-code %s | filecheck %s --check-prefix ONE

# CHECK-DAG: moe-partition: refused at {{.*}}: 2 experts are too few for 3 devices

# CHECK-LABEL: def chosen(
# CHECK-DAG: R.call_tir({{.*}}experts{{.*}}R.Tensor((n, 6)
# CHECK-DAG: R.add(
# CHECK-NOT: allreduce
# CHECK: return

# CHECK-LABEL: def fixed_tokens(
# CHECK-COUNT-3: R.call_tir({{.*}}experts{{.*}}R.Tensor((7, 6)
# CHECK: return

# CHECK-LABEL: def too_few(
# CHECK-COUNT-1: R.call_tir({{.*}}experts
# CHECK-NOT: R.call_tir
# CHECK: return

# CHECK-LABEL: def used_twice(
# CHECK-COUNT-3: R.call_tir({{.*}}experts
# CHECK: [[Y:[a-z0-9_]+]]: R.Tensor({{.*}} = R.reshape({{lv.*}}, R.shape([n, 6])){{$}}
# CHECK: R.multiply([[Y]], [[Y]])
# CHECK: return

# ONE-LABEL: def chosen(
# ONE-COUNT-1: R.call_tir({{.*}}experts
# ONE: R.ccl.allreduce({{.*}}op_type="sum"
# ONE: return


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
    def too_few(x: R.Tensor(("n", 6), "float32"), scores: R.Tensor(("n", 2), "float32")):
        n = T.int64()
        with R.dataflow():
            w1 = R.sin(R.reshape(R.arange(0, 60, 1, dtype="float32"), (2, 5, 6)))
            w2 = R.sin(R.reshape(R.arange(0, 60, 1, dtype="float32"), (2, 6, 5)))
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
    def fixed_tokens(x: R.Tensor((7, 6), "float32"), scores: R.Tensor((7, 4), "float32")):
        with R.dataflow():
            w1 = R.sin(R.reshape(R.arange(0, 120, 1, dtype="float32"), (4, 5, 6)))
            w2 = R.sin(R.reshape(R.arange(0, 120, 1, dtype="float32"), (4, 6, 5)))
            best = R.topk(scores, k=2, axis=1, ret_type="both", largest=True, dtype="int64")
            shares = best[0]
            ids = best[1]
            at = R.reshape(ids, (14,))
            rows = R.reshape(R.broadcast_to(R.reshape(x, (7, 1, 6)), (7, 2, 6)), (14, 6, 1))
            h = R.nn.relu(R.matmul(R.take(w1, at, axis=0), rows))
            out = R.reshape(R.matmul(R.take(w2, at, axis=0), h), (14, 6))
            weighted = R.multiply(out, R.reshape(shares, (14, 1)))
            y = R.sum(R.reshape(weighted, (7, 2, 6)), axis=[1])
            R.output(y)
        return y

    @R.function
    def used_twice(x: R.Tensor(("n", 6), "float32"), scores: R.Tensor(("n", 4), "float32")):
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
            both = R.add(R.multiply(y, y), y)
            R.output(both)
        return both
