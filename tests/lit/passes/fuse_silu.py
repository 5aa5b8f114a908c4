# RUN: %dscc opt -p fuse-silu --remarks %s | filecheck %s

# CHECK-DAG: refused at %product (multiply): %gate (sigmoid) is also read by %total (add)

# CHECK-LABEL: def either_order(
# CHECK: R.nn.silu(x)
# CHECK: R.nn.silu
# CHECK-NOT: R.sigmoid

# CHECK-LABEL: def other_operand(
# CHECK: R.sigmoid
# CHECK: R.multiply

# CHECK-LABEL: def second_user(
# CHECK: R.sigmoid
# CHECK: R.multiply


@I.ir_module
class Module:
    @R.function
    def either_order(x: R.Tensor(("n", 8, "h"), "float32")):
        n, h = T.int64(), T.int64()
        with R.dataflow():
            gate = R.sigmoid(x)
            first = R.multiply(gate, x)
            gate2 = R.sigmoid(first)
            out = R.multiply(first, gate2)
            R.output(out)
        return out

    @R.function
    def other_operand(x: R.Tensor(("n", 8), "float32"), y: R.Tensor(("n", 8), "float32")):
        n = T.int64()
        with R.dataflow():
            gate = R.sigmoid(x)
            out = R.multiply(gate, y)
            R.output(out)
        return out

    @R.function
    def second_user(x: R.Tensor((2, 8), "float32")):
        with R.dataflow():
            gate = R.sigmoid(x)
            product = R.multiply(x, gate)
            total = R.add(product, gate)
            R.output(total)
        return total
