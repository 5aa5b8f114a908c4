"""Hopper's warp group matrix instruction: its text for one shape, as a C++ structure with a function `run`."""

from __future__ import annotations

_KINDS = {
    # elements: (name in PTX, of the sums, depth of one instruction, whether either factor may be stored transposed)
    "float16": ("f16", "f32", 16, True),
    "bfloat16": ("bf16", "f32", 16, True),
    "float32": ("tf32", "f32", 8, False),
}


def instruction(dtype: str, columns: int, columns_inner: bool) -> tuple[str, str]:
    """The name and the source of `NAME::run(float* sums, left, right, accumulate)` for 64 rows.

    Args:
        columns: a multiple of 8 up to 256; `sums` holds half as many numbers.
        columns_inner: the right factor is stored [depth][column].
    """
    element, total, depth, transposes = _KINDS[dtype]
    count = columns // 2
    name = f"Wgmma_{element}_{columns}" + ("_t" if columns_inner else "")
    places = ", ".join(f"%{i}" for i in range(count))
    flags = f"p, 1, 1{f', 0, {int(columns_inner)}' if transposes else ''}"
    operands = ", ".join(f'"+f"(d[{i}])' for i in range(count))
    shape = f"m64n{columns}k{depth}.{total}.{element}.{element}"
    source = f"""
#ifndef DSCC_{name}
#define DSCC_{name}
namespace dscc {{
struct {name} {{
  static __device__ __forceinline__ void run(float* d, uint64_t left, uint64_t right, int accumulate) {{
    asm volatile("{{\\n.reg .pred p;\\nsetp.ne.b32 p, %{count + 2}, 0;\\n"
      "wgmma.mma_async.sync.aligned.{shape} {{{places}}}, %{count}, %{count + 1}, {flags};\\n}}"
      : {operands}
      : "l"(left), "l"(right), "r"(accumulate));
  }}
}};
}}
#endif
"""
    return f"dscc::{name}", source
