"""The outputs of a dense head and its ground truth, drawn at random for the tests of whole losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gfl_ops import PaddedTargets

STRIDES = (8, 16, 32, 64, 128)


@dataclass
class Head:
    cls_scores: list[Tensor]
    bbox_preds: list[Tensor]
    targets: list[dict[str, Tensor]]
    valid_shapes: Tensor | None = None

    @property
    def maps(self) -> list[Tensor]:
        return [*self.cls_scores, *self.bbox_preds]

    def map(self, change: Callable[[Tensor], Tensor]) -> Head:
        """The same head with its maps changed, as fresh leaves."""
        scores, edges = (
            [change(x.detach()).requires_grad_() for x in maps] for maps in (self.cls_scores, self.bbox_preds)
        )
        return replace(self, cls_scores=scores, bbox_preds=edges)

    def to(self, device: str) -> Head:
        targets = [{name: x.to(device) for name, x in target.items()} for target in self.targets]
        valid = None if self.valid_shapes is None else self.valid_shapes.to(device)
        return replace(self.map(lambda x: x.to(device)), targets=targets, valid_shapes=valid)

    def image(self, i: int) -> Head:
        valid = None if self.valid_shapes is None else self.valid_shapes[i : i + 1]
        return replace(self.map(lambda x: x[i : i + 1].clone()), targets=self.targets[i : i + 1], valid_shapes=valid)


def head(
    seed: int,
    gts: Sequence[int],
    size: tuple[int, int] = (160, 224),
    *,
    classes: int = 5,
    bins: int = 17,
    dtype: torch.dtype = torch.float32,
    valid: float | None = None,
    strides: Sequence[int] = STRIDES,
) -> Head:
    """One image for each number of ground truths; the values are those of float64, rounded."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    batch = len(gts)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    def maps(channels: int, shift: float) -> list[Tensor]:
        shapes = [(batch, channels, -(-height // stride), -(-width // stride)) for stride in strides]
        return [((draw(*shape) - 0.5) * 6 + shift).to(dtype).requires_grad_() for shape in shapes]

    box_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    targets = []
    for n in gts:
        center, extent = draw(n, 2) * torch.tensor([width, height]), draw(n, 2) ** 2 * min(size) + 6
        boxes = torch.cat([center - extent / 2, center + extent / 2], 1).to(box_dtype)
        targets.append({"boxes": boxes, "labels": torch.randint(classes, (n,), generator=generator)})
    shapes = None if valid is None else torch.tensor([[height * valid, width * valid]] * batch)
    return Head(maps(classes, -2.0), maps(4 * bins, 0.0), targets, shapes)


LOSSES = ("loss_cls", "loss_bbox", "loss_dfl")
UPSTREAM = (1.0, 0.5, 3.0)  # a different gradient into each loss


def losses_of(function: Callable[..., Any], head: Head, **options: Any) -> tuple[Tensor, ...]:
    result = function(
        head.cls_scores, head.bbox_preds, head.targets, head.valid_shapes, **{"strides": STRIDES} | options
    )
    return tuple(result[name] for name in LOSSES) if isinstance(result, dict) else result


def gradients(losses: Sequence[Tensor], head: Head, upstream: Sequence[float] = UPSTREAM) -> list[Tensor]:
    total = sum(factor * loss for factor, loss in zip(upstream, losses, strict=True))
    return list(torch.autograd.grad(total, head.maps))


def padded(targets: list[dict[str, Tensor]], most: int, fill: float = 0.0) -> PaddedTargets:
    boxes = torch.full((len(targets), most, 4), fill)
    labels = torch.zeros(len(targets), most, dtype=torch.int64)
    for i, target in enumerate(targets):
        boxes[i, : len(target["boxes"])] = target["boxes"]
        labels[i, : len(target["labels"])] = target["labels"]
    return PaddedTargets(boxes, labels, torch.tensor([len(target["labels"]) for target in targets]))
