"""The layers that necks and heads are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvLayer(nn.Module):
    """A convolution, with optional group normalisation and ReLU.

    The convolution has a bias unless a normalisation follows, which would subtract most of it; ``bias`` says otherwise.
    The parameters are called ``conv.*`` and ``gn.*``, as checkpoints have them.
    """

    gn: nn.GroupNorm | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        norm_groups: int | None = None,
        activate: bool = False,
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding=kernel_size // 2 if padding is None else padding,
            bias=norm_groups is None if bias is None else bias,
        )
        self.gn = None if norm_groups is None else nn.GroupNorm(norm_groups, out_channels)
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.gn is not None:
            x = self.gn(x)
        return functional.relu(x, inplace=True) if self.activate else x


def wide(x: Tensor) -> Tensor:
    """In float32 at least: exponentials and squares of half types overflow."""
    return x if x.dtype == torch.float64 else x.float()


class Scale(nn.Module):
    """Multiplies by a learnable number; each pyramid level has its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def deformable_conv(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """A square convolution without stride whose taps lie ``offset`` away from their places (Dai et al. 2017).

    ``offset`` is (B, 2 * G * K, H, W): for each of G groups of channels and K taps, y and x. Outside the image is 0.
    """
    batch, channels, height, width = x.shape
    size = weight.shape[-1]
    taps = size * size
    groups = offset.shape[1] // (2 * taps)
    offset = offset.reshape(batch * groups, taps, 2, height, width)
    place = torch.arange(size, device=x.device, dtype=offset.dtype) - size // 2
    tap_y, tap_x = place.repeat_interleave(size)[:, None, None], place.repeat(size)[:, None, None]
    rows = torch.arange(height, device=x.device, dtype=offset.dtype)[:, None]
    columns = torch.arange(width, device=x.device, dtype=offset.dtype)
    y, x_ = offset[:, :, 0] + tap_y + rows, offset[:, :, 1] + tap_x + columns  # (B * G, K, H, W)
    grid = torch.stack([(2 * x_ + 1) / width - 1, (2 * y + 1) / height - 1], -1).flatten(1, 2)
    samples = functional.grid_sample(
        x.reshape(batch * groups, channels // groups, height, width),
        grid.to(x.dtype),
        padding_mode="zeros",
        align_corners=False,
    )
    return torch.einsum("bckp,ock->bop", samples.reshape(batch, channels, taps, -1), weight.flatten(2)).unflatten(
        2, (height, width)
    )
