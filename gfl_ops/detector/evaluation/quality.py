"""How good the boxes are, compared with what the model predicts: scores, and spreads of the edge distributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import gfl_ops

from .detections import ImageDetections

_BINS = 10
_MATCHED = 0.5
"""A detection with at least this overlap counts as the object, and its edges are compared with the object's."""


@dataclass
class Quality:
    """Every detection, compared with the object of its class that it overlaps most. The order has no meaning."""

    scores: NDArray[np.float64]
    overlaps: NDArray[np.float64]
    errors: NDArray[np.float64]
    """(M,) of matched detections' edges: distance from the object's edge in pixels."""
    spreads: NDArray[np.float64]
    """(M,) the standard deviation that was predicted for that edge, in pixels; empty where the head predicts none."""

    def calibration(self) -> dict[str, Any]:
        """The mean spread and the root mean square of the error, for each tenth of the edges in order of their spread.

        For a calibrated model the two are equal. ``correlation`` is the rank correlation of spread and error.
        """
        if len(self.spreads) < 2 * _BINS:
            return {"edges": len(self.spreads), "bins": [], "correlation": None}
        order = np.argsort(self.spreads, kind="stable")
        bins = [
            {
                "spread": float(self.spreads[part].mean()),
                "error": float(np.sqrt(np.square(self.errors[part]).mean())),
                "edges": len(part),
            }
            for part in np.array_split(order, _BINS)
        ]
        positions = np.stack([np.argsort(np.argsort(x, kind="stable")) for x in (self.spreads, self.errors)])
        correlation = float(np.asarray(np.corrcoef(positions))[0, 1])
        return {"edges": len(self.spreads), "bins": bins, "correlation": correlation}


def quality(truth: dict[str, Any], detections: Sequence[ImageDetections], category_ids: Sequence[int]) -> Quality:
    label_of = {category: label for label, category in enumerate(category_ids)}
    objects: dict[int, list[tuple[list[float], int]]] = {}
    for row in truth["annotations"]:
        if not row.get("iscrowd"):
            x, y, width, height = row["bbox"]
            box = [x, y, x + width, y + height]
            objects.setdefault(row["image_id"], []).append((box, label_of[row["category_id"]]))
    scores, overlaps, errors, spreads = [], [], [np.zeros(0)], [np.zeros(0)]
    for image in detections:
        known = objects.get(image.image_id, [])
        scores.append(image.scores)
        if not known or not len(image.scores):
            overlaps.append(np.zeros(len(image.scores)))
            continue
        boxes = np.array([box for box, _ in known], dtype=np.float32)
        labels = np.array([label for _, label in known])
        overlap = gfl_ops.box_iou(torch.from_numpy(image.boxes), torch.from_numpy(boxes)).numpy()
        overlap = np.where(image.labels[:, None] == labels, overlap, 0)
        best = overlap.argmax(1)
        most = overlap[np.arange(len(best)), best]
        overlaps.append(most)
        if image.spread is not None:
            matched = most >= _MATCHED
            errors.append(np.abs(image.boxes - boxes[best])[matched].ravel())
            spreads.append(image.spread[matched].ravel())
    joined = [np.concatenate([np.zeros(0), *parts]).astype(np.float64) for parts in (scores, overlaps, errors, spreads)]
    return Quality(*joined)
