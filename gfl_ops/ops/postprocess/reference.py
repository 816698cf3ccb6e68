"""From a dense head's outputs to detections, image by image and level by level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .._formulas import softmax
from ..decode_boxes.reference import clip
from ..nms.reference import nms


class Detections(NamedTuple):
    """The result of :func:`gfl_ops.postprocess`: K detections for each image, of which the first counts[i] are real."""

    boxes: Tensor  # (B, K, 4) xyxy; 0 in the padding
    scores: Tensor  # (B, K), descending; 0 in the padding
    labels: Tensor  # (B, K) int64; -1 in the padding
    counts: Tensor  # (B,) int64: how many detections an image has
    edges: Tensor | None = None  # (B, K, 4, bins): the distributions of the left, top, right and bottom edge
    edge_std: Tensor | None = None  # (B, K, 4): their standard deviations, in bins
    edge_stride: Tensor | None = None  # (B, K): pixels per bin in the scaled image

    def to_list(self) -> list[dict[str, Tensor]]:
        """A dict for each image, without the padding, as torchvision's detectors return. Waits for the GPU."""
        fields = {name: value for name, value in self._asdict().items() if value is not None and name != "counts"}
        return [
            {name: value[image, :count] for name, value in fields.items()}
            for image, count in enumerate(self.counts.tolist())
        ]


def postprocess(
    cls_scores: Sequence[Tensor],
    bbox_preds: Sequence[Tensor],
    strides: Sequence[float],
    image_shapes: Tensor,
    scale_factors: Tensor | None,
    *,
    score_thr: float,
    nms_pre: int,
    iou_thr: float,
    max_per_img: int,
    min_size: float,
    with_edges: bool,
    criterion: str,
) -> Detections:
    dtype = image_shapes.dtype  # the widest of any input
    images: list[list[Tensor]] = []
    for image in range(len(image_shapes)):
        levels = []
        for cls_score, bbox_pred, stride in zip(cls_scores, bbox_preds, strides, strict=True):
            candidates = _best(cls_score[image].to(dtype), bbox_pred[image].to(dtype), score_thr, nms_pre)
            levels.append(_decode(*candidates, cls_score.shape[-1], stride, image_shapes[image]))
        boxes, scores, labels, edges, edge_strides = (torch.cat(parts) for parts in zip(*levels, strict=True))
        if scale_factors is not None:
            boxes = boxes / scale_factors[image].repeat(2)
        large = ((boxes[:, 2:] - boxes[:, :2]) > min_size).all(1).nonzero().squeeze(1)
        kept = large[nms(boxes[large], scores[large], iou_thr, labels[large], criterion=criterion)][:max_per_img]
        images.append([x[kept] for x in (boxes, scores, labels, *_with_deviation(edges, edge_strides))])
    return _padded(images, max_per_img, with_edges)


def _best(
    cls_score: Tensor, bbox_pred: Tensor, score_thr: float, nms_pre: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores, labels, cells and edge distributions of the best (cell, class) pairs above the threshold."""
    logits = cls_score.permute(1, 2, 0)  # cell after cell, the classes of a cell together
    # In double and rounded once: torch's float32 sigmoid may differ by where in memory a logit stands, and break a tie.
    scores = logits.double().sigmoid().to(logits.dtype)
    num_classes = scores.shape[-1]
    above = (scores.flatten() > score_thr).nonzero().squeeze(1)
    order = scores.flatten()[above].argsort(descending=True, stable=True)[:nms_pre]
    index = above[order]
    cell = index // max(num_classes, 1)
    edges = softmax(bbox_pred.flatten(1).T[cell].unflatten(1, (4, -1)))
    return scores.flatten()[index], index - cell * num_classes, cell, edges


def _decode(
    scores: Tensor, labels: Tensor, cell: Tensor, edges: Tensor, width: int, stride: float, image_shape: Tensor
) -> tuple[Tensor, ...]:
    points = torch.stack([cell % max(width, 1), cell // max(width, 1)], 1).to(edges.dtype) * stride
    bins = torch.arange(edges.shape[-1], device=edges.device, dtype=edges.dtype)
    left_top, right_bottom = ((edges * bins).sum(-1) * stride).chunk(2, 1)
    boxes = clip(torch.cat([points - left_top, points + right_bottom], 1), image_shape)
    return boxes, scores, labels, edges, torch.full_like(scores, stride)


def _with_deviation(edges: Tensor, edge_strides: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    bins = torch.arange(edges.shape[-1], device=edges.device, dtype=edges.dtype)
    mean = (edges * bins).sum(-1, keepdim=True)
    return edges, (edges * (bins - mean).square()).sum(-1).sqrt(), edge_strides


def _padded(images: list[list[Tensor]], size: int, with_edges: bool) -> Detections:
    counts = torch.tensor([len(image[0]) for image in images], device=images[0][0].device)

    def pad(parts: Sequence[Tensor]) -> Tensor:
        filler = 0.0 if parts[0].is_floating_point() else -1
        return torch.stack([torch.cat([x, x.new_full((size - len(x), *x.shape[1:]), filler)]) for x in parts])

    boxes, scores, labels, *edges = (pad(parts) for parts in zip(*images, strict=True))
    return Detections(boxes, scores, labels, counts, *(edges if with_edges else (None, None, None)))
