"""A head's maps, ground truths and image sizes that follow from names alone, for comparisons with other libraries."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .rule_weights import by_name

CLASSES = 7
STRIDES = {"ssd512": (8, 16, 32, 64, 128, 256, 512)}
PRIORS = {"ssd512": (4, 6, 6, 6, 6, 4, 4), "retinanet_r50_fpn": (9,) * 5}
BINS = {"gfl_r50_fpn": 17}
BRANCHED = ("atss_r50_fpn", "fcos_r50_fpn", "fcos_r50_fpn_plain")
NAMES = (*BRANCHED, "gfl_r50_fpn", "retinanet_r50_fpn", "fovea_r50_fpn", "ssd512")
CASES = {"few": ((3, 0), ((256, 320), (224, 320))), "many": ((40, 7), ((256, 256), (256, 320)))}
"""Ground truths of the two images, and their sizes rounded up to whole cells."""
SCALE = (1.25, 1.2)


class Case(NamedTuple):
    cls_scores: list[Tensor]
    bbox_preds: list[Tensor]
    """FCOS': in pixels."""
    centernesses: list[Tensor] | None
    targets: list[dict[str, Tensor]]
    padded_shapes: Tensor
    image_shapes: Tensor
    strides: tuple[int, ...]

    def maps(self) -> dict[str, list[Tensor]]:
        maps = {"cls_scores": self.cls_scores, "bbox_preds": self.bbox_preds}
        return maps if self.centernesses is None else maps | {"centernesses": self.centernesses}


def case_of(name: str, kind: str) -> Case:
    strides = STRIDES.get(name, (8, 16, 32, 64, 128))
    counts, padded = CASES[kind]
    if name == "ssd512":
        padded = ((512, 512), (512, 512))
    height, width = (max(side) for side in zip(*padded, strict=True))
    priors = PRIORS.get(name, (1,) * len(strides))
    classes = CLASSES + (name == "ssd512")

    def maps(what: str, channels: int) -> list[Tensor]:
        return [
            by_name(f"{name} {kind} {what} {stride}", (2, n * channels, -(-height // stride), -(-width // stride)))
            for stride, n in zip(strides, priors, strict=True)
        ]

    boxes = maps("boxes", 4 * BINS.get(name, 1))
    if name == "fcos_r50_fpn":
        boxes = [(4 * x + 2).abs() * stride for x, stride in zip(boxes, strides, strict=True)]
    if name == "fcos_r50_fpn_plain":
        boxes = [(x + 3).exp() for x in boxes]
    shift = 0.0 if name == "ssd512" else -2.0
    return Case(
        [2 * x + shift for x in maps("classes", classes)],
        [2 * x for x in boxes] if name in BINS else boxes,
        maps("branch", 1) if name in BRANCHED else None,
        [_target(f"{name} {kind} {i}", count, *padded[i]) for i, count in enumerate(counts)],
        torch.tensor(padded, dtype=torch.float32),
        torch.tensor([(h - 5, w - 3) for h, w in padded], dtype=torch.float32),
        strides,
    )


def _target(name: str, count: int, height: int, width: int) -> dict[str, Tensor]:
    size = torch.tensor([width, height])
    corner = (by_name(f"{name} corner", (count, 2)) + 1) * 0.4 * size
    extent = (by_name(f"{name} extent", (count, 2)) + 1) ** 2 * 45 + 4
    labels = ((by_name(f"{name} labels", (count,)) + 1) / 2 * CLASSES).long()
    return {"boxes": torch.cat([corner, torch.minimum(corner + extent, size)], 1), "labels": labels}


def figures(losses: dict[str, Tensor], gradients: dict[str, list[Tensor]]) -> dict[str, Any]:
    """What is compared: the losses, and of each gradient its size and some of its values."""
    return {
        "losses": {name: float(x.detach()) for name, x in losses.items()},
        "gradients": {
            name: [[float(x.double().norm()), *_largest(x)] for x in levels] for name, levels in gradients.items()
        },
    }


def _largest(x: Tensor) -> list[float]:
    """The values of largest size, in their places' order."""
    flat = x.detach().flatten()
    return flat[flat.abs().topk(min(6, len(flat))).indices.sort().values].tolist()
