"""A decoder with weights of 4 bits as onnxruntime-genai's model builder writes it, in small, weights random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Array = np.ndarray[Any, Any]
_MICROSOFT = "com.microsoft"
_POSITIONS = 2048


@dataclass(frozen=True)
class Decoder:
    """The sizes; heads of attention share `kv` keys and values."""

    layers: int = 4
    hidden: int = 1024
    heads: int = 16
    kv: int = 4
    size: int = 64
    inner: int = 2816
    words: int = 8192
    block: int = 32

    def model(self, level: int = 0) -> onnx.ModelProto:
        """The model: input_ids (b, s), attention_mask (b, t), past.i.k and past.i.v (b, kv, p, size) to logits and
        present.i.k, present.i.v; every MatMulNBits has this `accuracy_level`.
        """
        return _Writer(self, level).write()

    def feed(self, new: int, old: int) -> dict[str, Array]:
        """Inputs of `new` tokens with `old` in the cache."""
        rng = np.random.default_rng(0)
        feed: dict[str, Array] = {
            "input_ids": rng.integers(0, self.words, (1, new)),
            "attention_mask": np.ones((1, new + old), np.int64),
        }
        for name in self.caches("past"):
            feed[name] = rng.standard_normal((1, self.kv, old, self.size)).astype(np.float32)
        return feed

    def caches(self, which: str) -> list[str]:
        """The names of keys and values, layer by layer."""
        return [f"{which}.{layer}.{part}" for layer in range(self.layers) for part in "kv"]


class _Writer:
    def __init__(self, sizes: Decoder, level: int):
        self._sizes, self._level = sizes, level
        self._rng = np.random.default_rng(0)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def write(self) -> onnx.ModelProto:
        s = self._sizes
        angles = np.arange(_POSITIONS)[:, None] / 10000 ** (np.arange(s.size // 2) / (s.size // 2))
        tables = {"cos": np.cos(angles), "sin": np.sin(angles), "words": self._rng.standard_normal((s.words, s.hidden))}
        for name, array in tables.items():
            self._constant(name, array.astype(np.float32))
        self._constant("one", np.array([1]))
        self._constant("last", np.array(1))
        self._add("ReduceSum", ["attention_mask", "one"], ["count"], keepdims=1)
        self._add("Sub", ["count", "one"], ["index"])
        self._add("Cast", ["index"], ["lengths"], to=6)
        self._add("Shape", ["attention_mask"], ["extents"])
        self._add("Gather", ["extents", "last"], ["all"])
        self._add("Cast", ["all"], ["total"], to=6)
        self._add("Gather", ["words", "input_ids"], ["start"])
        self._add("SimplifiedLayerNormalization", ["start", self._gain("gain")], ["normed"], axis=-1, epsilon=1e-5)
        x, skip = "normed", "start"
        for layer in range(s.layers):
            x, skip = self._layer(f"{layer}", x, skip)
        self._add("Identity", [self._linear(x, s.hidden, s.words, "head")], ["logits"])
        value = helper.make_tensor_value_info
        inputs = [value("input_ids", 7, ["b", "s"]), value("attention_mask", 7, ["b", "t"])]
        inputs += [value(name, 1, ["b", s.kv, "p", s.size]) for name in s.caches("past")]
        outputs = [value("logits", 1, ["b", "s", s.words])]
        outputs += [value(name, 1, ["b", s.kv, "t", s.size]) for name in s.caches("present")]
        graph = helper.make_graph(self._nodes, "decoder", inputs, outputs, self._constants)
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid(_MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def _layer(self, at: str, x: str, skip: str) -> tuple[str, str]:
        s = self._sizes
        queries = self._linear(x, s.hidden, s.heads * s.size, f"{at}.q")
        keys, values = (self._linear(x, s.hidden, s.kv * s.size, f"{at}.{part}") for part in "kv")
        made = [f"{at}.attended", f"present.{at}.k", f"present.{at}.v"]
        given = [queries, keys, values, f"past.{at}.k", f"past.{at}.v", "lengths", "total", "cos", "sin"]
        heads = {"num_heads": s.heads, "kv_num_heads": s.kv, "do_rotary": 1}
        self._add("GroupQueryAttention", given, made, _MICROSOFT, **heads)
        x, skip = self._join(skip, self._linear(made[0], s.heads * s.size, s.hidden, f"{at}.o"), f"{at}.1")
        gate, up = (self._linear(x, s.hidden, s.inner, f"{at}.{part}") for part in ("gate", "up"))
        self._add("Sigmoid", [gate], [f"{at}.sigmoid"])
        self._add("Mul", [gate, f"{at}.sigmoid"], [f"{at}.silu"])
        self._add("Mul", [f"{at}.silu", up], [f"{at}.product"])
        return self._join(skip, self._linear(f"{at}.product", s.inner, s.hidden, f"{at}.down"), f"{at}.2")

    def _join(self, skip: str, x: str, name: str) -> tuple[str, str]:
        """The sum of both, normalised, and the sum."""
        made = [f"{name}.normed", "", "", f"{name}.sum"]
        self._add("SkipSimplifiedLayerNormalization", [skip, x, self._gain(name)], made, _MICROSOFT, epsilon=1e-5)
        return made[0], made[3]

    def _linear(self, x: str, depth: int, columns: int, name: str) -> str:
        block = self._sizes.block
        codes = self._rng.integers(0, 256, (columns, depth // block, block // 2)).astype(np.uint8)
        scales = self._rng.random((columns, depth // block)) / 50 / np.sqrt(depth / 64)
        given = [self._constant(f"{name}.codes", codes), self._constant(f"{name}.scales", scales.astype(np.float32))]
        sizes = {"K": depth, "N": columns, "bits": 4, "block_size": block, "accuracy_level": self._level}
        self._add("MatMulNBits", [x, *given], [name], _MICROSOFT, **sizes)
        return name

    def _gain(self, name: str) -> str:
        return self._constant(f"{name}.gain", (0.9 + self._rng.random(self._sizes.hidden) / 5).astype(np.float32))

    def _constant(self, name: str, array: Array) -> str:
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def _add(self, op: str, given: list[str], made: list[str], domain: str = "", **attributes: Any) -> None:
        self._nodes.append(helper.make_node(op, given, made, domain=domain, **attributes))
