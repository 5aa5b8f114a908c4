# RUN: %dscc opt -p expand-power --remarks %s | filecheck %s
# RUN: %dscc opt -p "expand-power{limit=2}" --remarks %s | filecheck %s --check-prefix LIMIT

# LIMIT-DAG: refused at %c (power): the exponent is 3, not an integer from 1 to 2

# CHECK-DAG: refused at %d (power): the exponent is 0.5, not an integer from 1 to 8
# CHECK-DAG: refused at %e (power): the exponent is not a constant

@I.ir_module
class Module:
    # CHECK-LABEL: def cube(
    # CHECK: [[square:\w+]]: {{.*}} R.multiply(x, x)
    # CHECK: R.multiply([[square]], x)
    @R.function
    def cube(x: R.Tensor(("n", 8), "float32")):
        with R.dataflow():
            c = R.power(x, R.const(3.0, "float32"))
            R.output(c)
        return c

    # CHECK-LABEL: def negative(
    # CHECK: [[square:\w+]]: {{.*}} R.multiply(x, x)
    # CHECK: R.divide({{.*}}[[square]])
    @R.function
    def negative(x: R.Tensor((3, 8), "float32")):
        with R.dataflow():
            b = R.power(x, R.const(-2.0, "float32"))
            R.output(b)
        return b

    # CHECK-LABEL: def root(
    # CHECK: R.power
    @R.function
    def root(x: R.Tensor((3,), "float32")):
        with R.dataflow():
            d = R.power(x, R.const(0.5, "float32"))
            R.output(d)
        return d

    # CHECK-LABEL: def square(
    # CHECK: R.multiply(x, x)
    # CHECK-NOT: R.power
    @R.function
    def square(x: R.Tensor(("n", 8), "float32")):
        with R.dataflow():
            a = R.power(x, R.const(2.0, "float32"))
            R.output(a)
        return a

    # CHECK-LABEL: def variable(
    # CHECK: R.power
    @R.function
    def variable(x: R.Tensor((3,), "float32"), y: R.Tensor((3,), "float32")):
        with R.dataflow():
            e = R.power(x, y)
            R.output(e)
        return e
