# RUN: %dscc opt -p fuse-silu --remarks --target x86:x86-64-v3 %s | filecheck %s
# RUN: %dscc opt -p fuse-silu - < %s | filecheck %s --check-prefix STDIN
# RUN: %dscc opt -p "" %s | filecheck %s --check-prefix NOTHING
# RUN: rm -rf %t.dump && %dscc opt -p fuse-silu,eliminate-dead-code --dump %t.dump %s > %t.out
# RUN: ls %t.dump | filecheck %s --check-prefix DUMP

# CHECK: # remark: fuse-silu: applied
# CHECK: R.nn.silu

# STDIN-NOT: # remark
# STDIN: R.nn.silu

# NOTHING: R.sigmoid

# DUMP: 00-input.py
# DUMP: 01-fuse-silu.py
# DUMP: 02-eliminate-dead-code.py


@R.function
def main(x: R.Tensor(("n", 4), "float32")):
    with R.dataflow():
        gate = R.sigmoid(x)
        out = R.multiply(x, gate)
        R.output(out)
    return out
