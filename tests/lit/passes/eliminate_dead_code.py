# RUN: %dscc opt -p eliminate-dead-code --remarks %s | filecheck %s

# CHECK: removed 2 bindings

@I.ir_module
class Module:
    # CHECK-LABEL: def main(
    # CHECK-NOT: R.exp
    # CHECK: R.add
    @R.function
    def main(x: R.Tensor(("n", 4), "float32")):
        n = T.int64()
        with R.dataflow():
            a = R.exp(x)
            b = R.multiply(a, x)
            out = R.add(x, x)
            R.output(out)
        return out
