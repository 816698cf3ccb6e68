"""ResNet (He et al. 2016) and ResNeXt (Xie et al. 2017).

Parameters and buffers are named as in torchvision and mmdet: ``conv1``, ``bn1``, ``layer1.0.conv1``, ...
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from .base import Backbone


@dataclass(frozen=True)
class ResNetConfig:
    """ResNet, or ResNeXt where ``groups`` > 1."""

    depth: int = 50
    groups: int = 1
    group_width: int = 64
    """Channels of one group in the first stage's 3x3 convolutions."""
    base_channels: int = 64
    frozen_stages: int = 1
    """How many stages, the stem among them, are not trained: -1 none, 0 the stem, 1 the stem and layer1, ..."""
    norm_eval: bool = True
    """Batch normalisation keeps the statistics that were loaded."""
    checkpointing: bool = False
    """Recompute each block in the backward pass: less memory, about a third more time."""
    style: Literal["pytorch", "caffe"] = "pytorch"
    """Where a bottleneck has its stride: in the 3x3 convolution, or in the 1x1 before it."""
    train_norms: bool = True
    """False: batch normalisation is a fixed factor and offset, as in weights that come from Detectron."""

    def build(self) -> Backbone:
        return ResNet(self)

    def from_scratch(self) -> ResNetConfig:
        return replace(self, frozen_stages=-1, norm_eval=False, train_norms=True)


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=False
    )


class _Block(nn.Module):
    """relu(residual(x) + shortcut(x)); the shortcut is x itself if the shapes are the same."""

    expansion: ClassVar[int]
    downsample: nn.Sequential | None

    @classmethod
    def shortcut(cls, in_channels: int, channels: int, stride: int) -> nn.Sequential | None:
        out_channels = channels * cls.expansion
        if stride == 1 and in_channels == out_channels:
            return None
        return nn.Sequential(_conv(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))

    def residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def conv_norm_pairs(self) -> Iterator[tuple[nn.Module, str, str]]:
        """(module, name of a convolution in it, name of the normalisation that follows)."""
        for i in range(1, 4):
            if hasattr(self, f"conv{i}"):
                yield self, f"conv{i}", f"bn{i}"
        if self.downsample is not None:
            yield self.downsample, "0", "1"

    def last_norm(self) -> nn.BatchNorm2d:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        out = self.residual(x)
        out += x if self.downsample is None else self.downsample(x)
        return functional.relu(out, inplace=True)


class BasicBlock(_Block):
    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, config: ResNetConfig) -> None:
        super().__init__()
        if config.groups != 1:
            raise ValueError(f"ResNetConfig: groups must be 1 for depth {config.depth}, got {config.groups}")
        self.conv1 = _conv(in_channels, channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = self.shortcut(in_channels, channels, stride)

    def residual(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.bn2(self.conv2(x))

    def last_norm(self) -> nn.BatchNorm2d:
        return self.bn2


class Bottleneck(_Block):
    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int, config: ResNetConfig) -> None:
        super().__init__()
        width = channels * config.group_width // config.base_channels * config.groups
        first, second = (stride, 1) if config.style == "caffe" else (1, stride)
        self.conv1 = _conv(in_channels, width, 1, first)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, second, config.groups)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, channels * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)
        self.downsample = self.shortcut(in_channels, channels, stride)

    def residual(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        x = functional.relu(self.bn2(self.conv2(x)), inplace=True)
        return self.bn3(self.conv3(x))

    def last_norm(self) -> nn.BatchNorm2d:
        return self.bn3


_DEPTHS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}


class ResNet(Backbone):
    """The four stages' outputs, at strides 4, 8, 16 and 32.

    ``train()`` does not undo ``frozen_stages`` and ``norm_eval``: what they freeze keeps the values that were loaded.
    """

    out_strides = (4, 8, 16, 32)
    file_parts: ClassVar[tuple[str, ...]] = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
    file_classifier: ClassVar[tuple[str, ...]] = ("fc",)

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        if config.depth not in _DEPTHS:
            raise ValueError(f"ResNetConfig: depth must be one of {', '.join(map(str, _DEPTHS))}, got {config.depth}")
        self.config = config
        block, counts = _DEPTHS[config.depth]
        channels = config.base_channels
        self.conv1 = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        in_channels = channels
        out_channels = []
        for stage, count in enumerate(counts):
            blocks = []
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(block(in_channels, channels, stride, config))
                in_channels = channels * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            out_channels.append(in_channels)
            channels *= 2
        self.out_channels = tuple(out_channels)
        self._init_weights()
        self._freeze()

    @property
    def stages(self) -> list[nn.Sequential]:
        return [self.get_submodule(f"layer{i}") for i in range(1, 5)]  # type: ignore[misc]

    def _init_weights(self) -> None:
        """For training from scratch: He initialisation, and every block starts as the identity."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, _Block):
                nn.init.zeros_(module.last_norm().weight)

    def _freeze(self) -> None:
        frozen = self.config.frozen_stages
        modules: list[nn.Module] = [self.conv1, self.bn1] if frozen >= 0 else []
        for module in [*modules, *self.stages[: max(frozen, 0)]]:
            module.eval()
            module.requires_grad_(False)
        if not self.config.train_norms:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.requires_grad_(False)

    def train(self, mode: bool = True) -> ResNet:
        super().train(mode)
        self._freeze()
        if mode and self.config.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def first_weight(self) -> Tensor:
        return self.conv1.weight

    def conv_norm_pairs(self) -> Iterator[tuple[nn.Module, str, str]]:
        yield self, "conv1", "bn1"
        for module in self.modules():
            if isinstance(module, _Block):
                yield from module.conv_norm_pairs()

    def forward(self, x: Tensor) -> list[Tensor]:
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        outputs = []
        for stage in self.stages:
            for block in stage:
                x = self._run(block, x)
            outputs.append(x)
        return outputs

    def _run(self, block: nn.Module, x: Tensor) -> Tensor:
        if self.config.checkpointing and torch.is_grad_enabled() and x.requires_grad:
            return checkpoint(block, x, use_reentrant=False)
        return block(x)
