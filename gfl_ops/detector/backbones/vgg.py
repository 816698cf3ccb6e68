"""VGG16 (Simonyan and Zisserman 2014) as SSD uses it: without its fully connected layers, two convolutions for them.

Parameters are named as in torchvision and mmdet: ``features.0``, ``features.2``, ...
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from .base import Backbone

_CONVOLUTIONS = (2, 2, 3, 3, 3)  # of the five stages; their widths are 1, 2, 4, 8 and 8 times the first one's
_WIDTHS = (1, 2, 4, 8, 8)
_OUTPUTS = (22, 34)  # the layers whose results are the feature maps


@dataclass(frozen=True)
class VGGConfig:
    base_channels: int = 64
    frozen_stages: int = -1
    """How many layers of ``features`` are not trained: -1 none."""
    checkpointing: bool = False
    """Not implemented for this backbone, which has no blocks."""

    def build(self) -> Backbone:
        return VGG(self)

    def from_scratch(self) -> VGGConfig:
        return replace(self, frozen_stages=-1)


class VGG(Backbone):
    """The maps after conv4_3 (stride 8) and after the second of the convolutions that replace fc6 and fc7 (16)."""

    out_strides = (8, 16)
    file_parts: ClassVar[tuple[str, ...]] = ("features",)
    file_classifier: ClassVar[tuple[str, ...]] = ("classifier",)
    file_may_lack: ClassVar[tuple[str, ...]] = ("features.31.", "features.33.")  # torchvision's; mmdet's have them

    def __init__(self, config: VGGConfig) -> None:
        super().__init__()
        if config.checkpointing:
            raise ValueError("VGGConfig: checkpointing must be False, got True; this backbone has no blocks")
        base = config.base_channels
        self.config = config
        self.out_channels = (8 * base, 16 * base)
        layers: list[nn.Module] = []
        for stage, (before, width) in enumerate(itertools.pairwise((3, *(base * factor for factor in _WIDTHS)))):
            for i in range(_CONVOLUTIONS[stage]):
                layers += [nn.Conv2d(width if i else before, width, 3, padding=1), nn.ReLU(inplace=True)]
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
        layers[-1] = nn.MaxPool2d(3, 1, padding=1)  # the fifth stage keeps its size
        layers += [nn.Conv2d(8 * base, 16 * base, 3, padding=6, dilation=6), nn.ReLU(inplace=True)]
        layers += [nn.Conv2d(16 * base, 16 * base, 1), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # it has one
        for layer in list(self.features)[: max(config.frozen_stages, 0)]:
            layer.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs: list[Any] = []
        for i, layer in enumerate(self.features):
            # A copy of what the next layer would overwrite is not needed: no layer after an output works in place.
            x = layer(x)
            if i in _OUTPUTS:
                outputs.append(x)
        return outputs
