"""The two layers that necks and heads are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvLayer(nn.Module):
    """A convolution, with optional group normalisation and ReLU.

    The convolution has a bias unless a normalisation follows, which would subtract it. The parameters are called
    ``conv.*`` and ``gn.*``, as checkpoints have them.
    """

    gn: nn.GroupNorm | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        norm_groups: int | None = None,
        activate: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=norm_groups is None
        )
        self.gn = None if norm_groups is None else nn.GroupNorm(norm_groups, out_channels)
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.gn is not None:
            x = self.gn(x)
        return functional.relu(x, inplace=True) if self.activate else x


class Scale(nn.Module):
    """Multiplies by a learnable number; each pyramid level has its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale
