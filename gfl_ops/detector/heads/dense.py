"""The dense head: from pyramid levels to scores and boxes, made of the parts in its configuration."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

import gfl_ops
from gfl_ops._distributed import start_mean_over_ranks

from ..layers import Scale
from ..settings import PostprocessConfig
from . import fused
from .boxes import Distribution
from .config import HeadConfig
from .parts import BranchedOutputs, Detection, Grid, HeadOutputs, Learning, Outputs, Priors, Targets, all_rows, padded
from .select import select
from .towers import Wanted


class DenseHead(nn.Module):
    """Owns all parameters, under the names that its family's files have.

    Called with a tensor (B, C, H, W) for each level, it gives :class:`HeadOutputs`. Training is :meth:`loss`, inference
    :meth:`detect`.
    """

    outputs: type[HeadOutputs] | type[BranchedOutputs]
    """What it predicts; made of lists of maps where those come from elsewhere."""

    def __init__(self, config: HeadConfig, num_classes: int, in_channels: Sequence[int]) -> None:
        super().__init__()
        config.quality.check(config.boxes)
        self.num_classes, self.strides = num_classes, config.strides
        self.priors_per_cell = tuple(config.priors.per_cell(level) for level in range(len(config.strides)))
        self._wanted = Wanted(
            config.quality.class_channels(num_classes),
            config.boxes.channels,
            config.quality.branch_on,
            self.priors_per_cell,
            config.names,
        )
        layers = config.towers.layers(in_channels, self._wanted) | config.quality.layers()
        for name, layer in layers.items():
            self.add_module(name, layer)
        if config.level_scales:
            self.scales = nn.ModuleList(Scale() for _ in config.strides)
        if isinstance(config.boxes, Distribution):
            self.integral = gfl_ops.Integral(config.boxes.reg_max)  # not used; checkpoints have its buffer
        self.outputs = HeadOutputs if config.quality.branch_on is None else BranchedOutputs
        self.use(config)
        config.towers.initialise(self, config.names, config.quality.sigmoid)

    def use(self, config: HeadConfig) -> None:
        """Takes another configuration of the same layers."""
        self.config = config
        self.criterion = fused.criterion(config, self.num_classes)
        self._detects_fused = fused.detects(config)

    @property
    def has_edges(self) -> bool:
        """Whether detections can have the distributions of their edges."""
        return self.config.boxes.has_edges

    def forward(self, levels: Sequence[Tensor]) -> Outputs:
        if len(levels) != len(self.strides):
            raise ValueError(
                f"{type(self).__name__}: levels must be one a stride = {len(self.strides)}, got {len(levels)}"
            )
        found = [self._predict(x, level) for level, x in enumerate(levels)]
        classes, boxes, branches = zip(*found, strict=True)
        if self.config.quality.branch_on is None:
            return HeadOutputs(list(classes), list(boxes))
        return BranchedOutputs(list(classes), list(boxes), list(branches))

    def _predict(self, x: Tensor, level: int) -> tuple[Tensor, Tensor, Tensor | None]:
        raw = self.config.towers.predict(self, x, level, self._wanted)
        scale = self.scales.get_parameter(f"{level}.scale") if self.config.level_scales else None
        boxes = self.config.boxes.activate(raw.boxes, scale, self.strides[level])
        return self.config.quality.activate(self, raw.classes, boxes), boxes, raw.branch

    # ---- training -----------------------------------------------------------------------------------------

    def loss(
        self, outputs: Outputs, targets: Targets, padded_shapes: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The losses, and detached figures about them. Targets are in pixels of the batch; padded_shapes: (B, 2)."""
        if self.criterion is None:
            return self.composed_loss(outputs, targets, padded_shapes)
        result = self.criterion(outputs.cls_scores, outputs.bbox_preds, targets, padded_shapes)
        losses = {name: value for name, value in result.items() if name.startswith("loss_")}
        return losses, {name: value for name, value in result.items() if name not in losses}

    def composed_loss(
        self, outputs: Outputs, targets: Targets, padded_shapes: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Part by part, over all priors, with weight 0 for the background: selecting the positives would wait for the
        device."""
        learning = self._learning(outputs, targets, padded_shapes)
        weight = self.config.quality.box_weight(learning)
        weighed = learning.positive.float() if weight is None else weight
        classes, boxes = self._divisors(learning.positive, weighed)
        losses = self.config.quality.losses(learning, classes) | self.config.boxes.losses(learning, weighed, boxes)
        return losses, {"num_pos": learning.positive.sum(), "avg_factor": classes}

    def _learning(self, outputs: Outputs, targets: Targets, padded_shapes: Tensor) -> Learning:
        gts = padded(targets)
        grid = self.grid(outputs)
        priors = self.config.priors.of(grid)
        with torch.no_grad():
            assigned = self.config.assigner.assign(grid, priors, gts, padded_shapes)
        positive = assigned >= 0
        index = assigned.clamp(min=0).long()
        labels = torch.where(positive, gts.labels.gather(1, index), assigned.long())
        boxes = gts.boxes.gather(1, index[..., None].expand(-1, -1, 4))
        if self.config.priors.inclusive:
            boxes = boxes - boxes.new_tensor([0, 0, 1, 1])
        boxes = torch.where(positive[..., None], boxes, priors.boxes)
        preds = torch.where(positive[..., None], all_rows(outputs.bbox_preds, self.priors_per_cell), 0.0)
        decoded = self.config.boxes.decode(preds, priors)
        return Learning(
            outputs, self.priors_per_cell, self.num_classes, labels, positive, priors, boxes, preds, decoded
        )

    def _divisors(self, positive: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Of the class losses and of the box losses."""
        kind = self.config.divisors
        each = positive.sum(1)
        count = each.clamp(min=1).sum() if kind.classes == "each_image" else each.sum()
        totals = torch.stack([count.float(), weight.sum()])
        count, sum_of_weights = (start_mean_over_ranks(totals)() if kind.over_ranks else totals).unbind()
        classes = count + len(positive) if kind.classes == "batch_and_images" else count.clamp(min=1)
        if kind.boxes == "classes":
            return classes, classes
        if kind.boxes == "positives":
            return classes, count.clamp(min=1)
        return classes, sum_of_weights.clamp(min=kind.least_weight)

    # ---- inference ----------------------------------------------------------------------------------------

    def detect(
        self,
        outputs: Outputs,
        image_shapes: Tensor,
        scale_factors: Tensor,
        config: PostprocessConfig,
        with_edges: bool = False,
    ) -> list[Detection]:
        """Detections of each image, in its own coordinates."""
        if with_edges and not self.has_edges:
            raise ValueError("DenseHead: with_edges must be False, got True; the head predicts no edge distributions")
        if self._detects_fused:
            return fused.detect(self.strides, outputs, image_shapes, scale_factors, config, with_edges)
        return self.composed_detect(outputs, image_shapes, scale_factors, config, with_edges)

    def composed_detect(
        self,
        outputs: Outputs,
        image_shapes: Tensor,
        scale_factors: Tensor,
        config: PostprocessConfig,
        with_edges: bool = False,
    ) -> list[Detection]:
        """Part by part."""
        priors = self.config.priors.of(self.grid(outputs))
        scores, factors = self._scores(outputs)
        preds = all_rows(outputs.bbox_preds, self.priors_per_cell)
        boxes = self.config.boxes.decode(preds, priors)
        sizes = [
            n * level.shape[-2] * level.shape[-1]
            for n, level in zip(self.priors_per_cell, outputs.cls_scores, strict=True)
        ]
        detections = []
        for i, (shape, scale) in enumerate(zip(image_shapes, scale_factors, strict=True)):
            factor = None if factors is None else factors[i]
            inclusive = self.config.priors.inclusive
            found, prior = select(scores[i], factor, boxes[i], shape, scale, sizes, config, inclusive)
            if with_edges:
                found |= self._edges(preds[i, prior], prior, priors)
            detections.append(found)
        return detections

    def decode(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """All boxes (B, A, 4) in pixels of the batch and scores (B, A, C), in standard operators: for export."""
        priors = self.config.priors.of(self.grid(outputs))
        scores, factors = self._scores(outputs)
        boxes = self.config.boxes.decode(all_rows(outputs.bbox_preds, self.priors_per_cell), priors)
        return boxes, scores if factors is None else scores * factors[..., None]

    def grid(self, outputs: Outputs) -> Grid:
        shapes = [(level.shape[-2], level.shape[-1]) for level in outputs.bbox_preds]
        return Grid(shapes, self.strides, outputs.bbox_preds[0].device)

    def _scores(self, outputs: Outputs) -> tuple[Tensor, Tensor | None]:
        """(B, A, C) probabilities, and (B, A) what they are multiplied with after their threshold."""
        rows = all_rows(outputs.cls_scores, self.priors_per_cell)
        scores = self.config.quality.probabilities(rows, self.num_classes)
        if not isinstance(outputs, BranchedOutputs):
            return scores, None
        return scores, all_rows(outputs.centernesses, self.priors_per_cell)[..., 0].sigmoid()

    def _edges(self, preds: Tensor, prior: Tensor, priors: Priors) -> Detection:
        """As :func:`gfl_ops.postprocess` gives them."""
        boxes = self.config.boxes
        assert isinstance(boxes, Distribution)
        edges = preds.unflatten(1, (4, -1)).softmax(2)
        bins = torch.arange(boxes.num_bins, device=preds.device, dtype=preds.dtype)
        mean = (edges * bins).sum(2, keepdim=True)
        deviation = (edges * (bins - mean).square()).sum(2).sqrt()
        return {"edges": edges, "edge_std": deviation, "edge_stride": boxes.pixels(priors)[prior, 0]}
