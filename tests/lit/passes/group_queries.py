# RUN: %dscc opt -p group-queries --remarks %s | filecheck %s

# CHECK-DAG: refused at %out (nn.attention): keys and values have different numbers of groups

# CHECK-LABEL: def different_groups(
# CHECK: R.nn.attention(q, kw, vw, scale=None

# CHECK-LABEL: def other_users(
# CHECK: R.broadcast_to
# CHECK: [[K:[a-z_0-9]+]]: R.Tensor((n, keys, 2, 8), dtype="float32") = R.reshape(k1
# CHECK: R.nn.attention(q, [[K]],

# CHECK-LABEL: def repeated_as_a_whole(
# CHECK: R.broadcast_to
# CHECK: R.nn.attention(q, kw, kw, scale=None

# CHECK-LABEL: def sequence_before_heads(
# CHECK-NOT: broadcast_to
# CHECK: [[K:[a-z_0-9]+]]: R.Tensor((n, keys, 2, 8), dtype="float32") = R.reshape(k1
# CHECK: R.nn.attention(q, [[K]],

# CHECK-LABEL: def sequence_behind_heads(
# CHECK-NOT: broadcast_to
# CHECK: [[K:[a-z_0-9]+]]: R.Tensor((n, keys, 2, 8), dtype="float32") = R.permute_dims(
# CHECK: R.nn.attention(q, [[K]],


@I.ir_module
class Module:
    @R.function
    def sequence_behind_heads(
        q: R.Tensor(("n", "queries", 6, 8), "float32"),
        k: R.Tensor(("n", 2, "keys", 8), "float32"),
        v: R.Tensor(("n", 2, "keys", 8), "float32"),
    ):
        n, queries, keys = T.int64(), T.int64(), T.int64()
        with R.dataflow():
            k1 = R.reshape(k, R.shape([n, 2, 1, keys, 8]))
            v1 = R.reshape(v, R.shape([n, 2, 1, keys, 8]))
            k2 = R.reshape(R.broadcast_to(k1, R.shape([n, 2, 3, keys, 8])), R.shape([n, 6, keys, 8]))
            v2 = R.reshape(R.broadcast_to(v1, R.shape([n, 2, 3, keys, 8])), R.shape([n, 6, keys, 8]))
            kp = R.permute_dims(k2, axes=[0, 2, 1, 3])
            vp = R.permute_dims(v2, axes=[0, 2, 1, 3])
            out = R.nn.attention(q, kp, vp)
            R.output(out)
        return out

    @R.function
    def sequence_before_heads(
        q: R.Tensor(("n", "queries", 6, 8), "float32"),
        k: R.Tensor(("n", "keys", 2, 8), "float32"),
        v: R.Tensor(("n", "keys", 2, 8), "float32"),
    ):
        n, queries, keys = T.int64(), T.int64(), T.int64()
        with R.dataflow():
            k1 = R.reshape(k, R.shape([n, keys, 2, 1, 8]))
            v1 = R.reshape(v, R.shape([n, keys, 2, 1, 8]))
            kw = R.reshape(R.broadcast_to(k1, R.shape([n, keys, 2, 3, 8])), R.shape([n, keys, 6, 8]))
            vw = R.reshape(R.broadcast_to(v1, R.shape([n, keys, 2, 3, 8])), R.shape([n, keys, 6, 8]))
            out = R.nn.attention(q, kw, vw)
            R.output(out)
        return out

    @R.function
    def different_groups(
        q: R.Tensor(("n", "queries", 6, 8), "float32"),
        k: R.Tensor(("n", "keys", 2, 8), "float32"),
        v: R.Tensor(("n", "keys", 3, 8), "float32"),
    ):
        n, queries, keys = T.int64(), T.int64(), T.int64()
        with R.dataflow():
            k1 = R.reshape(k, R.shape([n, keys, 2, 1, 8]))
            v1 = R.reshape(v, R.shape([n, keys, 3, 1, 8]))
            kw = R.reshape(R.broadcast_to(k1, R.shape([n, keys, 2, 3, 8])), R.shape([n, keys, 6, 8]))
            vw = R.reshape(R.broadcast_to(v1, R.shape([n, keys, 3, 2, 8])), R.shape([n, keys, 6, 8]))
            out = R.nn.attention(q, kw, vw)
            R.output(out)
        return out

    @R.function
    def other_users(
        q: R.Tensor(("n", "queries", 6, 8), "float32"),
        k: R.Tensor(("n", "keys", 2, 8), "float32"),
        v: R.Tensor(("n", "keys", 2, 8), "float32"),
    ):
        n, queries, keys = T.int64(), T.int64(), T.int64()
        with R.dataflow():
            k1 = R.reshape(k, R.shape([n, keys, 2, 1, 8]))
            v1 = R.reshape(v, R.shape([n, keys, 2, 1, 8]))
            kw = R.reshape(R.broadcast_to(k1, R.shape([n, keys, 2, 3, 8])), R.shape([n, keys, 6, 8]))
            vw = R.reshape(R.broadcast_to(v1, R.shape([n, keys, 2, 3, 8])), R.shape([n, keys, 6, 8]))
            out = R.nn.attention(q, kw, vw)
            both = (out, kw)
            R.output(both)
        return both

    # The heads of a group do not lie side by side: head h reads h % 2.
    @R.function
    def repeated_as_a_whole(
        q: R.Tensor(("n", "queries", 6, 8), "float32"), k: R.Tensor(("n", "keys", 2, 8), "float32")
    ):
        n, queries, keys = T.int64(), T.int64(), T.int64()
        with R.dataflow():
            k1 = R.reshape(k, R.shape([n, keys, 1, 2, 8]))
            kw = R.reshape(R.broadcast_to(k1, R.shape([n, keys, 3, 2, 8])), R.shape([n, keys, 6, 8]))
            out = R.nn.attention(q, kw, kw)
            R.output(out)
        return out
