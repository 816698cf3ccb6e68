"""What a detector asks of its backbone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor, nn


class Backbone(nn.Module):
    """From a batch (B, 3, H, W) to feature maps, the finest first."""

    out_channels: tuple[int, ...]
    out_strides: tuple[int, ...]
    """Of the feature maps."""
    file_parts: ClassVar[tuple[str, ...]]
    """What the names in a file of this backbone's ImageNet weights begin with, up to their first dot."""
    file_classifier: ClassVar[tuple[str, ...]]
    """And of what such a file holds beside the backbone."""
    file_may_lack: ClassVar[tuple[str, ...]] = ()
    """Beginnings of names that some of these files do not have."""

    def first_weight(self) -> Tensor:
        """The weight that meets the pixels: its device, type and memory format are what a batch has to have."""
        return next(self.parameters())

    def conv_norm_pairs(self) -> Iterator[tuple[nn.Module, str, str]]:
        """(module, name of a convolution in it, name of the normalisation that follows)."""
        return iter(())
