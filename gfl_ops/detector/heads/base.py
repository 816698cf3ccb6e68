"""What dense heads share: two towers of convolutions over every pyramid level, and the grid of anchor points."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from gfl_ops import PaddedTargets

from ..config import HeadConfig, PostprocessConfig
from ..layers import ConvLayer

Target = dict[str, Tensor]
Targets = list[Target] | PaddedTargets
Detection = dict[str, Tensor]
Outputs = TypeVar("Outputs", bound=NamedTuple)

_PRIOR = 0.01  # the probability that every class starts with, so that the background does not swamp the first steps


class DenseHead(nn.Module, Generic[Outputs]):
    """Scores and boxes for every cell of every level, from convolutions that all levels share.

    A subclass builds its last layers and applies them to the towers' features in :meth:`predict`. ``outputs`` is a
    NamedTuple of lists, each with one tensor for each level.
    """

    outputs: ClassVar[type[Any]]

    def __init__(self, config: HeadConfig, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.strides = config.strides
        self.cls_convs = self.tower(config, in_channels)
        self.reg_convs = self.tower(config, in_channels)

    @staticmethod
    def tower(config: HeadConfig, in_channels: int) -> nn.Sequential:
        widths = [in_channels] + [config.feat_channels] * config.stacked_convs
        return nn.Sequential(
            *(
                ConvLayer(before, after, 3, norm_groups=config.norm_groups, activate=True)
                for before, after in itertools.pairwise(widths)
            )
        )

    def init_weights(self, classifier: nn.Conv2d) -> None:
        """Small normal weights; the classifier's bias such that every class starts at a probability of 0.01."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        assert classifier.bias is not None
        nn.init.constant_(classifier.bias, -math.log((1 - _PRIOR) / _PRIOR))

    def forward(self, levels: Sequence[Tensor]) -> Outputs:
        if len(levels) != len(self.strides):
            raise ValueError(
                f"{type(self).__name__}: levels must be one a stride = {len(self.strides)}, got {len(levels)}"
            )
        predictions = [self.predict(self.cls_convs(x), self.reg_convs(x), i) for i, x in enumerate(levels)]
        return self.outputs(*map(list, zip(*predictions, strict=True)))

    def predict(self, cls_features: Tensor, reg_features: Tensor, level: int) -> tuple[Tensor, ...]:
        """One level's tensors, in the order of ``outputs``."""
        raise NotImplementedError

    def loss(
        self, outputs: Outputs, targets: Targets, padded_shapes: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The losses, and detached figures about them. Targets are in pixels of the batch; padded_shapes: (B, 2)."""
        raise NotImplementedError

    def detect(
        self,
        outputs: Outputs,
        image_shapes: Tensor,
        scale_factors: Tensor,
        config: PostprocessConfig,
        with_edges: bool = False,
    ) -> list[Detection]:
        """Detections of each image, in its own coordinates."""
        raise NotImplementedError

    def decode(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """All boxes (B, A, 4) in pixels of the batch and scores (B, A, C), in standard operators: for export."""
        raise NotImplementedError


def anchor_points(level: Tensor, stride: int) -> Tensor:
    """(H * W, 2) xy in pixels: the cells' corners, row after row, as mmdet's anchors are centred."""
    height, width = level.shape[-2:]
    y = torch.arange(height, device=level.device, dtype=torch.float32) * stride
    x = torch.arange(width, device=level.device, dtype=torch.float32) * stride
    rows_of, columns_of = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([columns_of, rows_of], 2).flatten(0, 1)


def rows(level: Tensor) -> Tensor:
    """(B, C, H, W) to (B, H * W, C)."""
    return level.flatten(2).transpose(1, 2)
