"""A model's detections on a data set, by one process or many."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..batch import input_size
from ..data import DetectionData, evaluation_loader
from ..engine.ranks import Ranks
from ..model import Detector


@dataclass
class ImageDetections:
    """The detections of one image, by descending score."""

    image_id: int
    boxes: NDArray[np.float32]
    """(K, 4) xyxy."""
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    spread: NDArray[np.float32] | None = None
    """(K, 4) standard deviations of the left, top, right and bottom edge in pixels, where the head predicts them."""


@torch.no_grad()
def detect(
    model: Detector,
    data: DetectionData,
    ranks: Ranks,
    *,
    batch_size: int = 8,
    workers: int = 0,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> list[ImageDetections]:
    """The detections of all images, in the data's order, on every rank. The model is left in evaluation mode."""
    model.eval()
    edges = model.bbox_head.has_edges
    loader = evaluation_loader(data, batch_size, rank=ranks.rank, world_size=ranks.world_size, workers=workers)
    own = []
    for batch in progress(loader):
        found = model(batch.images, with_edges=edges)
        for image_id, image, one in zip(batch.image_ids, batch.images, found, strict=True):
            spread = (one["edge_std"].float() * pixels_per_bin(one, image, model)).cpu().numpy() if edges else None
            boxes, scores = (one[name].float().cpu().numpy() for name in ("boxes", "scores"))
            own.append(ImageDetections(image_id, boxes, scores, one["labels"].cpu().numpy(), spread))
    shares = ranks.gather(own)
    return [shares[i % len(shares)][i // len(shares)] for i in range(len(data))]


def pixels_per_bin(found: dict[str, Tensor], image: Tensor, model: Detector) -> Tensor:
    """(K, 4) the width of a bin of the left, top, right and bottom edge's distribution, in pixels of the image."""
    height, width = image.shape[1:]
    new_height, new_width = input_size(height, width, model.config.input)
    unit = torch.tensor([width / new_width, height / new_height], device=found["edge_stride"].device).repeat(2)
    return found["edge_stride"].float()[:, None] * unit


def as_results(detections: Iterable[ImageDetections], category_ids: list[int]) -> list[dict[str, Any]]:
    """The rows of COCO's results file: bbox is x, y, width, height."""
    return [
        {
            "image_id": image.image_id,
            "category_id": category_ids[label],
            "bbox": [round(x, 3) for x in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(score, 6),
        }
        for image in detections
        for (x1, y1, x2, y2), score, label in zip(
            image.boxes.tolist(), image.scores.tolist(), image.labels.tolist(), strict=True
        )
    ]
