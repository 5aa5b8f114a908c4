"""Read the text in a picture with the two PP-OCRv4 networks: find lines, cut them out, recognise each.

The networks do the work; here is only what stands around them, in NumPy and Pillow, for text that is not rotated. After
"Real-time Scene Text Detection with Differentiable Binarization" (Liao et al. 2019) and CTC (Graves et al. 2006).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, Any]
# Takes a model's inputs by name and returns its outputs.
Runner = Callable[[Mapping[str, Array]], Sequence[Array]]

THRESHOLD, MIN_SCORE, MIN_SIDE, UNCLIP = 0.3, 0.5, 3, 1.6
LINE_HEIGHT, STRIDE = 48, 32  # what the recogniser was trained at, and what the detector divides its input by


@dataclass(frozen=True)
class Line:
    """A recognised line: its box in pixels (left, top, right, bottom), the text, and the mean confidence."""

    box: tuple[int, int, int, int]
    text: str
    confidence: float


def read(image: Image.Image, detect: Runner, recognise: Runner, alphabet: Sequence[str]) -> list[Line]:
    """All lines of text in the picture, from top to bottom."""
    lines = []
    for box in find_boxes(detect({"x": normalise(fit_stride(image))})[0][0, 0]):
        crop = image.crop(box)
        width = max(STRIDE, round(crop.width * LINE_HEIGHT / crop.height))
        scores = recognise({"x": normalise(crop.resize((width, LINE_HEIGHT), Image.Resampling.BILINEAR))})[0][0]
        text, confidence = decode(scores, alphabet)
        if text:
            lines.append(Line(box, text, confidence))
    return lines


def fit_stride(image: Image.Image) -> Image.Image:
    """The picture on a ground whose sides are multiples of the detector's stride; pixels keep their places."""
    width, height = (-(-side // STRIDE) * STRIDE for side in image.size)
    ground = Image.new("RGB", (width, height), image.getpixel((0, 0)))
    ground.paste(image)
    return ground


def normalise(image: Image.Image) -> Array:
    """(1, 3, height, width), blue first as the networks were trained, in -1..1."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)[..., ::-1]
    return np.ascontiguousarray(((pixels - 127.5) / 127.5).transpose(2, 0, 1)[None])


def find_boxes(probability: Array) -> list[tuple[int, int, int, int]]:
    """Boxes around the connected regions of a (height, width) map that are probably text, from top to bottom.

    The network marks the core of a line; each region grows by its area over its perimeter, as the paper does.
    """
    height, width = probability.shape
    boxes = []
    for left, top, right, bottom in regions(probability > THRESHOLD):
        w, h = right - left, bottom - top
        if min(w, h) < MIN_SIDE or probability[top:bottom, left:right].mean() < MIN_SCORE:
            continue
        grow = round(UNCLIP * w * h / (2 * (w + h)))
        boxes.append((max(0, left - grow), max(0, top - grow), min(width, right + grow), min(height, bottom + grow)))
    return sorted(boxes, key=lambda box: (box[1], box[0]))


def regions(mask: Array) -> list[tuple[int, int, int, int]]:
    """Bounding boxes of the 4-connected regions of a boolean (height, width) mask.

    Runs of each row are joined with the runs that they touch in the row above: union-find over runs, not over pixels.
    """
    parents: list[int] = []
    boxes: list[list[int]] = []

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = parents[i]
        return i

    above: list[tuple[int, int, int]] = []
    for y, row in enumerate(mask):
        edges = np.flatnonzero(np.diff(np.concatenate(([0], row.astype(np.int8), [0]))))
        current = []
        for start, end in edges.reshape(-1, 2).tolist():
            me = len(parents)
            parents.append(me)
            boxes.append([start, y, end, y + 1])
            for other_start, other_end, other in above:
                if other_start < end and start < other_end:
                    a, b = root(other), root(me)
                    parents[b] = a
                    boxes[a] = [min(boxes[a][0], boxes[b][0]), min(boxes[a][1], boxes[b][1])] + [
                        max(boxes[a][2], boxes[b][2]),
                        max(boxes[a][3], boxes[b][3]),
                    ]
            current.append((start, end, me))
        above = current
    return [(b[0], b[1], b[2], b[3]) for i, b in enumerate(boxes) if parents[i] == i]


def decode(scores: Array, alphabet: Sequence[str]) -> tuple[str, float]:
    """Greedy CTC: the best class of every step, repeats merged, blanks (class 0) dropped. scores: (steps, classes)."""
    best = scores.argmax(axis=1)
    first = np.concatenate(([True], best[1:] != best[:-1])) & (best != 0)
    text = "".join(alphabet[i] for i in best[first])
    return text.strip(), float(scores.max(axis=1)[first].mean()) if first.any() else 0.0


def read_alphabet(model: Any) -> list[str]:
    """The characters of the recogniser by class, from its ONNX metadata; blank comes first and the space last."""
    listed = {entry.key: entry.value for entry in model.metadata_props}["character"]
    return ["", *listed.splitlines(), " "]
