"""The curves of a report, as SVG files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation import CocoMetrics, Quality

_MOST_POINTS = 4000  # of a scatter plot, so that its file stays small


def loss_curves(path: Path, train: Sequence[dict[str, float]], evaluations: Sequence[dict[str, float]]) -> None:
    def plot(axes: Any) -> None:
        iterations = [row["iteration"] for row in train]
        for name in train[0]:
            if name.startswith("loss"):
                values = [row[name] for row in train]
                axes.plot(iterations, values, label=name, linewidth=2 if name == "loss" else 1)
        axes.set(xlabel="iteration", ylabel="loss", yscale="log")
        lines, labels = axes.get_legend_handles_labels()
        if len(evaluations) > 1:
            other = axes.twinx()
            for name in ("AP", "AP50"):
                points = [row["iteration"] for row in evaluations]
                lines += other.plot(points, [row[name] for row in evaluations], "o--", label=name)
                labels.append(name)
            other.set(ylabel="AP", ylim=(0, 1))
        axes.legend(lines, labels, loc="best")

    _chart(path, "Losses", plot)


def precision_recall(path: Path, metrics: CocoMetrics) -> None:
    def plot(axes: Any) -> None:
        names = [name for name in metrics.per_class if metrics.per_class[name]["objects"] > 0]
        curves = {name: metrics.precision[:, i] for i, name in enumerate(metrics.per_class) if name in names}
        for name, curve in curves.items():
            label = f"{name} {metrics.per_class[name]['AP50']:.2f}" if len(curves) <= 20 else None
            axes.plot(metrics.recalls, curve, linewidth=1, alpha=0.8, label=label)
        if curves:
            axes.plot(metrics.recalls, np.mean(list(curves.values()), axis=0), "k", linewidth=2.5, label="mean")
            axes.legend(loc="lower left", fontsize="small", ncols=2)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))

    _chart(path, "Precision and recall at an overlap of 0.5", plot)


def score_against_overlap(path: Path, quality: Quality) -> None:
    """As Figure 2b of the GFL paper: is a high score a good box?"""

    def plot(axes: Any) -> None:
        matched = quality.overlaps > 0.1  # the others are background, whose scores say nothing about boxes
        scores, overlaps = quality.scores[matched], quality.overlaps[matched]
        chosen = np.random.default_rng(0).permutation(len(scores))[:_MOST_POINTS]
        axes.scatter(overlaps[chosen], scores[chosen], s=5, alpha=0.35, linewidths=0)
        axes.plot([0, 1], [0, 1], "k--", linewidth=1)
        if len(scores) > 2:
            axes.set_title(f"correlation {np.corrcoef(overlaps, scores)[0, 1]:.2f}", fontsize="medium")
        axes.set(xlabel="overlap with the object (IoU)", ylabel="score", xlim=(0, 1), ylim=(0, 1))

    _chart(path, "Score and quality", plot, size=(5, 5))


def calibration(path: Path, bins: Sequence[dict[str, float]], correlation: float) -> None:
    def plot(axes: Any) -> None:
        spread, error = [row["spread"] for row in bins], [row["error"] for row in bins]
        most = max(*spread, *error) * 1.05
        axes.plot([0, most], [0, most], "k--", linewidth=1, label="calibrated")
        axes.plot(spread, error, "o-", label="a tenth of the edges each")
        axes.legend()
        axes.set_title(f"rank correlation {correlation:.2f}", fontsize="medium")
        axes.set(xlabel="predicted spread of an edge, pixels", ylabel="error (root mean square), pixels")

    _chart(path, "Localisation", plot, size=(5, 5))


def _chart(path: Path, title: str, plot: Callable[[Any], None], size: tuple[float, float] = (8, 5)) -> None:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    figure.suptitle(title)
    plot(axes)
    axes.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None})
