"""Feature Pyramid Network (Lin et al. 2017) with strided convolutions for the levels beyond the backbone's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from ..layers import ConvLayer


@dataclass(frozen=True)
class FPNConfig:
    out_channels: int = 256
    start_level: int = 1
    num_levels: int = 5
    extra_source: Literal["output", "input"] = "output"
    """Input of the first extra level: the output of the last level, or the backbone's last stage."""
    relu_before_extra: bool = False
    """Of the extra levels after the first, as FCOS has it."""

    def build(self, in_channels: Sequence[int]) -> FPN:
        return FPN(self, in_channels)


class FPN(nn.Module):
    """Pyramid levels of equal width from a backbone's stages, those before ``start_level`` left out."""

    def __init__(self, config: FPNConfig, in_channels: Sequence[int]) -> None:
        super().__init__()
        self.config = config
        self.out_channels = (config.out_channels,) * config.num_levels
        used = in_channels[config.start_level :]
        channels = config.out_channels
        self.lateral_convs = nn.ModuleList(ConvLayer(c, channels, 1) for c in used)
        self.fpn_convs = nn.ModuleList(ConvLayer(channels, channels, 3) for _ in used)
        extra_in = used[-1] if config.extra_source == "input" else channels
        for _ in range(config.num_levels - len(used)):
            self.fpn_convs.append(ConvLayer(extra_in, channels, 3, stride=2))
            extra_in = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, stages: Sequence[Tensor]) -> list[Tensor]:
        used = stages[self.config.start_level :]
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, used, strict=True)]
        for i in range(len(laterals) - 1, 0, -1):
            # To the finer level's own size, which is not always twice the coarser one's.
            size = laterals[i - 1].shape[-2:]
            laterals[i - 1] = laterals[i - 1] + functional.interpolate(laterals[i], size=size, mode="nearest")
        levels = [conv(x) for conv, x in zip(self.fpn_convs, laterals, strict=False)]
        source = used[-1] if self.config.extra_source == "input" else levels[-1]
        for i, conv in enumerate(list(self.fpn_convs)[len(levels) :]):
            source = conv(functional.relu(source) if i > 0 and self.config.relu_before_extra else source)
            levels.append(source)
        return levels
