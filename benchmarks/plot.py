"""The race as a picture: for every model, the best peer's time over dscc's, at each thread count."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks import standing
from benchmarks.standing import Record

COLOURS = ("#1f6f8b", "#e08e45", "#6a994e")


def draw(records: Sequence[Record], path: Path) -> None:
    """Write a PNG of horizontal bars, the model that is furthest behind at the bottom; the line is equality."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    counts = standing.threads_of(records)
    shown = [record for record in records if any(standing.lead(record, count) for count in counts)]
    shown.sort(key=lambda record: standing.lead(record, counts[0]) or 0.0)
    height = 0.8 / max(len(counts), 1)
    figure, axes = pyplot.subplots(figsize=(9, 1.5 + 0.34 * len(shown)))
    for k, count in enumerate(counts):
        leads = [standing.lead(record, count) or 0.0 for record in shown]
        places = [i + (k - (len(counts) - 1) / 2) * height for i in range(len(shown))]
        mean = standing.mean_lead(shown, count)
        label = f"{standing.plural(count).lower()}, geometric mean {mean:.2f}"
        axes.barh(places, leads, height, color=COLOURS[k % len(COLOURS)], label=label)
        for place, value, record in zip(places, leads, shown, strict=True):
            peer = standing.best_peer(record, count)
            if value and peer:
                axes.text(value, place, f" {value:.2f} {peer.engine}", va="center", fontsize=6.5)
    axes.set_yticks(range(len(shown)), [record.case for record in shown])
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xlabel("best peer's time over dscc's: above 1, dscc is faster")
    axes.set_xlim(0, max([2.0, *(1.15 * (standing.lead(r, c) or 0.0) for r in shown for c in counts)]))
    axes.legend(loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=130, metadata={"Software": None})
    pyplot.close(figure)
