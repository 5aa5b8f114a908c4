# RUN: %dscc opt -p lower-precision --remarks %s | filecheck %s

# CHECK: lower-precision: {{[0-9]+}} products in float16

# CHECK-LABEL: def branch_of_another_type(
# CHECK-NOT: float16
# CHECK: R.matmul(

# CHECK-LABEL: def convolution(
# CHECK: R.nn.conv2d({{.*}}out_dtype="float32"
# CHECK: dtype="float16") = R.nn.relu(

# CHECK-LABEL: def product(
# CHECK: [[HALF:%?[a-z0-9_]+]]: R.Tensor((n, 4), dtype="float16") = R.astype(x, dtype="float16")
# CHECK: [[SUM:[a-z0-9_]+]]: R.Tensor((n, 3), dtype="float32") = R.matmul([[HALF]], {{.*}}out_dtype="float32")
# CHECK: [[STORED:[a-z0-9_]+]]: R.Tensor((n, 3), dtype="float16") = R.astype([[SUM]], dtype="float16")
# CHECK: [[WIDE:[a-z0-9_]+]]: R.Tensor((n, 3), dtype="float32") = R.astype([[STORED]], dtype="float32")
# CHECK: R.exp([[WIDE]])
# CHECK: R.sum({{.*}}
# CHECK: R.nn.softmax({{.*}}

# CHECK-LABEL: def without_product(
# CHECK-NOT: float16


@I.ir_module
class Module:
    @R.function
    def product(x: R.Tensor(("n", 4), "float32")):
        n = T.int64()
        with R.dataflow():
            y = R.matmul(x, R.const([[1.0, 2.0, 0.5], [0.25, -1.0, 3.0], [0.1, 0.2, 0.3], [-2.0, 1.0, 0.0]], "float32"))
            e = R.exp(y)
            s = R.sum(e, axis=[1])
            p = R.nn.softmax(y, axis=-1)
            R.output(s, p)
        return s, p

    @R.function
    def without_product(x: R.Tensor((3, 4), "float32")):
        with R.dataflow():
            y = R.nn.softmax(R.add(x, R.const(1.0, "float32")), axis=-1)
            R.output(y)
        return y

    @R.function
    def convolution(x: R.Tensor((1, 5, 5, 2), "float32"), w: R.Tensor((3, 3, 3, 2), "float32")):
        with R.dataflow():
            y = R.nn.conv2d(x, w, padding=1, data_layout="NHWC", kernel_layout="OHWI")
            z = R.nn.relu(y)
            p = R.permute_dims(z, axes=[0, 3, 1, 2])
            R.output(p)
        return p

    @R.function
    def branch_of_another_type(x: R.Tensor((3, 4), "float64"), y: R.Tensor((4, 2), "float64")):
        with R.dataflow():
            z = R.matmul(x, y)
            R.output(z)
        return z
