"""The load of experts as a picture: layers down, experts across, the share of the layer's choices as colour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dscc.errors import InputError
from dscc.runtime.balance import Load


def draw(loads: Sequence[Load], path: Path) -> None:
    """Write a PNG: every expert's choices over an even share, with the imbalance of every layer beside it.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as err:
        raise InputError("a plot needs matplotlib, which is not installed: pip install matplotlib") from err
    matplotlib.use("agg")
    from matplotlib import pyplot

    most = max(len(load.chosen) for load in loads)
    shares = np.full((len(loads), most), np.nan)  # layers may have different numbers of experts
    for row, load in enumerate(loads):
        shares[row, : len(load.chosen)] = np.array(load.chosen) * len(load.chosen) / max(1, sum(load.chosen))
    figure, axes = pyplot.subplots(figsize=(2.5 + min(12.0, 0.3 * most + 2), max(2.8, 1.5 + 0.3 * len(loads))))
    image = axes.imshow(shares, cmap="viridis", aspect="auto", vmin=0.0, interpolation="nearest")
    names = [f"{load.layer[-40:]}  ({load.imbalance:.2f})" for load in loads]
    axes.set_yticks(range(len(loads)), names, fontsize=7)
    axes.set_xlabel(f"expert; {loads[0].tokens} tokens, in brackets the busiest expert over the mean")
    figure.colorbar(image, label="choices over an even share")
    figure.tight_layout()
    figure.savefig(path, format="png", dpi=130, metadata={"Software": None})
    pyplot.close(figure)
