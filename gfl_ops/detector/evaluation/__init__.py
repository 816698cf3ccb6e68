"""Evaluation: COCO's metrics, also of each class, and the calibration of the edge distributions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoint import write_atomically
from ..data import DetectionData
from ..engine.checkpoints import write_json
from ..engine.ranks import Ranks
from ..model import Detector
from .coco_metrics import CocoMetrics, coco_metrics
from .detections import ImageDetections, as_results, detect
from .quality import Quality, quality

__all__ = [
    "CocoMetrics",
    "Evaluation",
    "ImageDetections",
    "Quality",
    "as_results",
    "coco_metrics",
    "detect",
    "evaluate",
    "quality",
]


@dataclass
class Evaluation:
    metrics: CocoMetrics
    quality: Quality
    detections: list[ImageDetections]
    results: list[dict[str, Any]]
    """The rows of COCO's results file."""

    def as_json(self) -> dict[str, Any]:
        return {
            "metrics": self.metrics.summary,
            "per_class": self.metrics.per_class,
            "calibration": self.quality.calibration(),
        }

    def write(self, folder: Path) -> dict[str, str]:
        """Writes the detections, in the format of COCO's test server, and the metrics. Returns the files' paths."""
        rows = json.dumps(self.results).encode()
        write_atomically(folder / "results.json", lambda file: file.write(rows))
        write_json(folder / "metrics.json", self.as_json())
        return {"results": str(folder / "results.json"), "metrics": str(folder / "metrics.json")}


def evaluate(
    model: Detector,
    data: DetectionData,
    ranks: Ranks,
    *,
    batch_size: int = 8,
    workers: int = 0,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Evaluation:
    """Evaluates a model. Every rank returns the same, for any number of ranks and workers on a given device.

    Example:
        >>> evaluation = evaluate(model, SyntheticScenes("val", 200), Ranks(0, 1, torch.device("cpu")))
        >>> evaluation.metrics.summary["AP50"], evaluation.metrics.per_class["star"]["AP"]
    """
    found = detect(model, data, ranks, batch_size=batch_size, workers=workers, progress=progress)
    categories = [int(i) for i in data.category_ids]
    truth = data.ground_truth()
    results = as_results(found, categories)
    return Evaluation(coco_metrics(truth, results), quality(truth, found, categories), found, results)
