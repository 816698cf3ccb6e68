# mypy: disable-error-code="no-untyped-def"
"""How the Triton kernels walk the map (B, channels, H, W) of one level: in tiles of neighbouring positions.

H and W are one axis. Either a plane's positions lie side by side (contiguous) or a position's channels do
(channels-last); with the layout and the number of channels known to the compiler, all strides follow from the number of
positions. That is specialised on in one way alone: whether all planes begin where wide accesses may, which is when it
is a multiple of UNIT = 16.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from . import _triton

UNIT = 16
MAP_SIZES = ["tiles_each", "positions", "first", "anchors"]


@triton.jit
def map_strides(positions, CHANNELS: tl.constexpr, UNIT: tl.constexpr, POSITIONS_ADJOIN: tl.constexpr):
    """(number of positions, stride of a position, stride of a channel) from the number of units of positions."""
    positions = tl.cast(positions, tl.int64) * UNIT
    if POSITIONS_ADJOIN:
        return positions, 1, positions
    else:
        return positions, CHANNELS, 1


@triton.jit
def tile_of_map(tile, tiles_each, BLOCK: tl.constexpr):
    """(image, the first position) of a tile; each image has `tiles_each`."""
    tile = tl.cast(tile, tl.int64)
    return tile // tiles_each, tile % tiles_each * BLOCK


def positions_adjoin(x: Tensor) -> bool:
    channels, positions = x.shape[1], x.shape[2] * x.shape[3]
    return channels == 1 or (positions > 1 and x.is_contiguous())


class Level(NamedTuple):
    """A map and its place among the anchors of an image."""

    map: Tensor
    first: int
    anchors: int

    @property
    def positions(self) -> int:
        return self.map.shape[2] * self.map.shape[3]

    @property
    def unit(self) -> int:
        return UNIT if positions_adjoin(self.map) and self.positions % UNIT == 0 else 1

    def constants(self) -> dict[str, int]:
        return {"UNIT": self.unit, "POSITIONS_ADJOIN": positions_adjoin(self.map)}

    def sizes(self) -> tuple[int, int, int]:
        """What a kernel takes: units of positions, the level's first anchor and the number of all."""
        return self.positions // self.unit, self.first, self.anchors

    def tiles_each(self, block: int) -> int:
        return _triton.cdiv(self.positions, block)


def levels_of(maps: Sequence[Tensor]) -> Iterator[Level]:
    """Maps as _native.as_map leaves them."""
    anchors = sum(x.shape[2] * x.shape[3] for x in maps)
    first = 0
    for x in maps:
        level = Level(x, first, anchors)
        yield level
        first += level.positions
