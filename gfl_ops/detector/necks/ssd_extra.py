"""SSD's levels (Liu et al. 2016): the backbone's own, the first of them normalised, and ever smaller ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..layers import ConvLayer, wide


@dataclass(frozen=True)
class SSDExtraConfig:
    extra_channels: tuple[int, ...] = (512, 256, 256, 256, 256)
    last_kernel: int = 4
    """The last level's convolution has this size and no stride: from 2 cells to 1 at 512 pixels."""
    l2_scale: float = 20.0

    def build(self, in_channels: Sequence[int]) -> SSDExtra:
        return SSDExtra(self, in_channels)


class L2Norm(nn.Module):
    """A pixel's features at length 1, then times a learned factor for each channel."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        full = wide(x)
        length = full.pow(2).sum(1, keepdim=True).sqrt() + 1e-10
        return (self.weight.to(full.dtype)[:, None, None] * full / length).to(x.dtype)


class SSDExtra(nn.Module):
    def __init__(self, config: SSDExtraConfig, in_channels: Sequence[int]) -> None:
        super().__init__()
        self.out_channels = (*in_channels, *config.extra_channels)
        self.l2_norm = L2Norm(in_channels[0], config.l2_scale)
        layers = []
        before = in_channels[-1]
        for i, channels in enumerate(config.extra_channels):
            narrow = ConvLayer(before, channels // 2, 1, activate=True)
            if i + 1 < len(config.extra_channels):
                last = ConvLayer(channels // 2, channels, 3, stride=2, activate=True)
            else:
                last = ConvLayer(channels // 2, channels, config.last_kernel, padding=1, activate=True)
            layers.append(nn.Sequential(narrow, last))
            before = channels
        self.extra_layers = nn.ModuleList(layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # it has one

    def forward(self, stages: Sequence[Tensor]) -> list[Tensor]:
        levels = [self.l2_norm(stages[0]), *stages[1:]]
        for layer in self.extra_layers:
            levels.append(layer(levels[-1]))
        return levels
