"""What stands around the networks of the demo: regions of a map, CTC."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import ocr


def mask(text: str) -> np.ndarray:
    return np.array([[c == "#" for c in line] for line in text.split()])


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("... ...", []),
        ("### ###", [(0, 0, 3, 2)]),
        ("#.# #.# ###", [(0, 0, 3, 3)]),  # joined only by the last row
        ("#.# ... #.#", [(0, 0, 1, 1), (2, 0, 3, 1), (0, 2, 1, 3), (2, 2, 3, 3)]),
        (".#. #.# .#.", [(1, 0, 2, 1), (0, 1, 1, 2), (2, 1, 3, 2), (1, 2, 2, 3)]),  # corners do not touch
        ("####. ...#. .###. .#...", [(0, 0, 4, 4)]),
        ("#.#.# #.#.# #####", [(0, 0, 5, 3)]),
    ],
)
def test_regions(text: str, boxes: list[tuple[int, int, int, int]]) -> None:
    assert sorted(ocr.regions(mask(text))) == sorted(boxes)


def test_boxes_grow_and_stay_inside() -> None:
    probability = np.zeros((40, 100), np.float32)
    probability[2:12, 10:90] = 0.9
    probability[30:40, 10:90] = 0.4  # over the threshold of a pixel, under that of a box
    assert ocr.find_boxes(probability) == [(3, 0, 97, 19)]


@pytest.mark.parametrize(
    ("classes", "text"),
    [([0, 1, 1, 0, 1, 2, 0], "aab"), ([0, 0], ""), ([1, 3, 2], "a b"), ([3, 1, 3], "a")],
)
def test_decode(classes: list[int], text: str) -> None:
    scores = np.full((len(classes), 4), 0.1)
    scores[np.arange(len(classes)), classes] = 0.7
    decoded, confidence = ocr.decode(scores, ["", "a", "b", " "])
    assert decoded == text
    assert confidence == pytest.approx(0.7 if any(classes) else 0.0)
