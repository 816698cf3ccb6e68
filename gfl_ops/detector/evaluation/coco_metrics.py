"""COCO's average precision and recall, by pycocotools, the evaluator of published figures."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@dataclass
class CocoMetrics:
    summary: dict[str, float]
    """By the names of COCO's twelve figures, 0 to 1; -1 where there is no such object."""
    per_class: dict[str, dict[str, float]]
    """AP, AP50, AP75 and AR100 of each class, and how many objects it has."""
    recalls: NDArray[np.float64]
    """(101,)"""
    precision: NDArray[np.float64]
    """(101, classes) at an overlap of 0.5; -1 where a class has no object."""


def coco_metrics(truth: dict[str, Any], results: list[dict[str, Any]]) -> CocoMetrics:
    """``truth`` as :meth:`DetectionData.ground_truth` gives it, ``results`` as :func:`as_results`."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ImportError("the evaluation needs pycocotools: pip install 'gfl_ops[detector]'") from error
    if not truth["annotations"] or not results:  # the evaluator cannot load an empty list
        return _nothing(truth)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress and the table
        known = COCO()
        known.dataset = {"info": {}, **truth}
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes([dict(row) for row in results]), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"]  # overlap, recall, class, area, number of detections
    recall = evaluation.eval["recall"]
    counts = _counts(truth)
    per_class = {
        category["name"]: {
            "AP": _mean(precision[:, :, i, 0, -1]),
            "AP50": _mean(precision[0, :, i, 0, -1]),
            "AP75": _mean(precision[5, :, i, 0, -1]),
            "AR100": _mean(recall[:, i, 0, -1]),
            "objects": counts[category["id"]],
        }
        for i, category in enumerate(sorted(truth["categories"], key=lambda row: row["id"]))
    }
    summary = {name: float(value) for name, value in zip(NAMES, evaluation.stats, strict=True)}
    return CocoMetrics(summary, per_class, evaluation.params.recThrs, precision[0, :, :, 0, -1])


def _nothing(truth: dict[str, Any]) -> CocoMetrics:
    """The metrics where there are no objects or no detections, as the evaluator defines them."""
    counts = _counts(truth)
    figures = {i: 0.0 if count else -1.0 for i, count in counts.items()}
    overall = 0.0 if any(counts.values()) else -1.0
    names = {row["id"]: row["name"] for row in sorted(truth["categories"], key=lambda row: row["id"])}
    per_class = {
        name: dict.fromkeys(("AP", "AP50", "AP75", "AR100"), figures[i]) | {"objects": counts[i]}
        for i, name in names.items()
    }
    precision = np.tile(np.array([figures[i] for i in names], dtype=np.float64), (101, 1))
    return CocoMetrics(dict.fromkeys(NAMES, overall), per_class, np.linspace(0, 1, 101), precision)


def _counts(truth: dict[str, Any]) -> dict[int, int]:
    counts = {category["id"]: 0 for category in truth["categories"]}
    for annotation in truth["annotations"]:
        counts[annotation["category_id"]] += not annotation.get("iscrowd")
    return counts


def _mean(values: NDArray[np.float64]) -> float:
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else -1.0
