"""The detector: images in, losses or detections out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor, nn

from . import checkpoint
from .batch import Batch, Target, check_targets, make_batch, scale_targets
from .config import ModelConfig
from .heads import DenseHead, Outputs

Detection = dict[str, Tensor]


class Detector(nn.Module):
    """Backbone, neck and dense head, called as torchvision's detectors are.

    ``model(images, targets)`` in training gives a dict of losses to add up; ``model(images)`` in evaluation gives a
    dict of boxes, scores and labels for each image, in that image's coordinates. Images are (3, H, W) tensors of any
    size, uint8 or float in [0, 1], RGB; targets are dicts of ``boxes`` (G, 4) xyxy in pixels of the image and
    ``labels`` (G,) in [0, num_classes).

    A box that is inverted or not finite, or a label outside its range, raises an error if the target is in host memory.
    On another device the check would have to wait for the device, and such a target is ignored. Boxes without area are
    always ignored.
    """

    def __init__(self, config: ModelConfig, num_classes: int = 80) -> None:
        super().__init__()
        if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
            raise ValueError(f"detector: num_classes must be a whole number from 1, got {num_classes!r}")
        self.config = config
        self.num_classes = num_classes
        self.backbone = config.backbone.build()
        self.neck = config.neck.build(self.backbone.out_channels)
        self.bbox_head = DenseHead(config.head, num_classes, self.neck.out_channels)

    @overload
    def forward(
        self, images: Sequence[Tensor], targets: Sequence[Target], *, short_sides: Sequence[int] | None = None
    ) -> dict[str, Tensor]: ...

    @overload
    def forward(
        self, images: Sequence[Tensor], targets: None = None, *, with_edges: bool = False
    ) -> list[Detection]: ...

    def forward(
        self,
        images: Sequence[Tensor],
        targets: Sequence[Target] | None = None,
        *,
        with_edges: bool = False,
        short_sides: Sequence[int] | None = None,
    ) -> dict[str, Tensor] | list[Detection]:
        if self.training:
            if targets is None:
                raise ValueError("detector: targets must be given in training; call model.eval() for detections")
            return self.loss(images, targets, short_sides)[0]
        return self.detect(images, with_edges=with_edges)

    def raw(self, batch: Tensor) -> Outputs:
        """The head's outputs for a normalised batch (B, 3, H, W): a named tuple of lists, a tensor for each level."""
        return self.bbox_head(self.neck(self.backbone(batch)))

    def loss(
        self, images: Sequence[Tensor], targets: Sequence[Target], short_sides: Sequence[int] | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The losses, and detached figures to log: the number of positives and the divisor of the averages.

        ``short_sides``, one for each image, are the short sides after resizing, in place of the configuration's.
        """
        return self.loss_of(self.prepare(images, targets, short_sides))

    def loss_of(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """:meth:`loss` of what :meth:`prepare` made of images and targets. The host does not wait for the device."""
        assert batch.targets is not None
        return self.bbox_head.loss(self.raw(batch.pixels), batch.targets, batch.padded_shapes)

    @torch.no_grad()
    def detect(self, images: Sequence[Tensor], *, with_edges: bool = False) -> list[Detection]:
        """``with_edges`` adds, for heads that predict them, the edge distributions and their standard deviations."""
        if len(images) == 0:
            return []
        batch = self.prepare(images)
        outputs = self.raw(batch.pixels)
        return self._detect(outputs, batch, with_edges)

    @torch.compiler.disable
    def prepare(
        self,
        images: Sequence[Tensor],
        targets: Sequence[Target] | None = None,
        short_sides: Sequence[int] | None = None,
    ) -> Batch:
        """The batch, with the device, dtype and memory format of the model, and the targets in its coordinates."""
        if targets is not None:
            if len(images) == 0:
                raise ValueError("detector: images must not be empty in training")
            check_targets(targets, len(images), self.num_classes)
        weight = self.backbone.first_weight()
        batch = make_batch(images, self.config.input, weight.device, self.training, short_sides)
        pixels = batch.pixels.to(weight.dtype)
        if weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous():
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        batch = batch._replace(pixels=pixels)
        return batch if targets is None else batch._replace(targets=scale_targets(targets, batch))

    @torch.compiler.disable
    def _detect(self, outputs: Outputs, batch: Batch, with_edges: bool) -> list[Detection]:
        return self.bbox_head.detect(
            outputs, batch.image_shapes, batch.scale_factors, self.config.postprocess, with_edges
        )

    def load_checkpoint(self, path: str | Path, **options: Any) -> checkpoint.LoadReport:
        """:func:`gfl_ops.detector.load_checkpoint` into this model."""
        return checkpoint.load_checkpoint(self, path, **options)

    def save_checkpoint(self, path: str | Path, meta: dict[str, Any] | None = None) -> None:
        """:func:`gfl_ops.detector.save_checkpoint` of this model."""
        checkpoint.save_checkpoint(self, path, meta)
