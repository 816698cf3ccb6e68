"""What a row of the case table (cases/) is made of: the case, memory layouts, and the maker of its values.

Values are drawn in float64 and then rounded, so that every dtype sees the same case.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

COMPUTE_DTYPE = {
    torch.float64: torch.float64,
    torch.float32: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float16: torch.float32,
}


@dataclass(frozen=True)
class Case:
    op: str
    name: str
    build: Callable[[Maker], dict[str, Any]]
    kwargs: dict[str, Any] = field(default_factory=dict)
    differentiable: tuple[str, ...] = ("pred",)
    large: bool = False  # several blocks or threads' worth; not for the CUDA kernels on the host
    scale: float = 0.0  # the size of the terms, where the result is their difference
    smooth: bool = True  # finite differences agree with the gradient: no tie, clamp or detached term in reach

    @property
    def id(self) -> str:
        return f"{self.op}-{self.name}"

    def inputs(self, dtype: torch.dtype, device: str = "cpu") -> dict[str, Any]:
        return self.build(Maker(dtype, device, seed=hash_of(self.id)))


def hash_of(text: str) -> int:
    """A seed that does not change from run to run as hash() does."""
    return int.from_bytes(text.encode(), "little") % (2**31 - 1)


# ---- layouts: the same values in another memory order ------------------------------------------------


def contiguous(x: Tensor) -> Tensor:
    return x.contiguous()


def transposed(x: Tensor) -> Tensor:
    """The last two dimensions lie the other way round in memory."""
    return x.mT.contiguous().mT


def strided_rows(x: Tensor) -> Tensor:
    """Columns cut out of a wider tensor, not at its start: row stride > columns, an odd storage offset."""
    wide = torch.full((*x.shape[:-1], x.shape[-1] + 5), 7.0, dtype=x.dtype, device=x.device)
    wide[..., 3:-2] = x
    return wide[..., 3:-2]


def strided_cols(x: Tensor) -> Tensor:
    """Every second column of a wider tensor."""
    wide = torch.full((*x.shape[:-1], x.shape[-1] * 2), 7.0, dtype=x.dtype, device=x.device)
    wide[..., ::2] = x
    return wide[..., ::2]


def every_other_row(x: Tensor) -> Tensor:
    tall = torch.full((x.shape[0] * 2, *x.shape[1:]), 7.0, dtype=x.dtype, device=x.device)
    tall[::2] = x
    return tall[::2]


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


MATRIX_LAYOUTS = (transposed, strided_rows, strided_cols, every_other_row)


class Maker:
    """Draws the inputs of one case."""

    def __init__(self, dtype: torch.dtype, device: str, seed: int) -> None:
        self.dtype = dtype
        self.compute_dtype = COMPUTE_DTYPE[dtype]
        self.device = device
        self.generator = torch.Generator().manual_seed(seed)

    def _rand(self, *shape: int) -> Tensor:
        return torch.rand(shape, dtype=torch.float64, generator=self.generator)

    def _randn(self, *shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=self.generator)

    def cast(self, x: Tensor, layout: Callable[[Tensor], Tensor] = contiguous, like_pred: bool = True) -> Tensor:
        return layout(x.to(self.device, self.dtype if like_pred else self.compute_dtype))

    def logits(self, *shape: int, mean: float = 0.0, std: float = 2.0, layout=contiguous) -> Tensor:
        return self.cast(self._randn(*shape) * std + mean, layout)

    def probabilities(self, *shape: int, layout=contiguous) -> Tensor:
        # 1/32 steps off the ends survive the rounding to half types.
        return self.cast(self._rand(*shape) * 0.9375 + 0.03125, layout)

    def values(self, *shape: int, low: float = 0.0, high: float = 1.0, layout=contiguous, like_pred=False) -> Tensor:
        return self.cast(self._rand(*shape) * (high - low) + low, layout, like_pred)

    def weights(self, *shape: int) -> Tensor:
        """Some of them zero, as in training."""
        w = self._rand(*shape)
        return self.cast(torch.where(w < 0.3, 0.0, w), like_pred=False)

    def labels(self, rows: int, classes: int, dtype: torch.dtype = torch.int64) -> Tensor:
        """A third positives; background as `classes`, beyond it, and negative where the dtype has a sign."""
        label = torch.randint(0, max(classes, 1), (rows,), generator=self.generator)
        background = torch.tensor([classes, classes + 7, -1 if dtype.is_signed else classes])
        chosen = background[torch.randint(0, 3, (rows,), generator=self.generator)]
        return torch.where(self._rand(rows) < 0.35, label, chosen).to(self.device, dtype)

    def scores(self, rows: int) -> Tensor:
        """Qualities in [0, 1], both ends among them."""
        return self.cast((self._rand(rows) * 1.2 - 0.1).clamp(0, 1), like_pred=False)

    def soft_targets(self, rows: int, cols: int, layout=contiguous, like_pred: bool = False) -> Tensor:
        """Mostly zero; qualities elsewhere, some of them 1."""
        t = (self._rand(rows, cols) * 1.1).clamp(max=1)
        return self.cast(torch.where(self._rand(rows, cols) < 0.7, 0.0, t), layout, like_pred)

    def bin_targets(self, *shape: int, bins: int, first: float = 0.0) -> Tensor:
        """Between the first and the last bin, with both ends and some whole numbers among them."""
        t = self._rand(*shape) * (bins - 1)
        t = torch.where(self._rand(*shape) < 0.2, t.round(), t)
        flat = t.reshape(-1)
        flat[::7] = bins - 1
        flat[3::7] = 0
        return self.cast(t + first, like_pred=False)

    def boxes(self, rows: int, extent: float = 64.0) -> Tensor:
        """(rows, 4) xyxy in float64, of positive size."""
        corner = self._rand(rows, 2) * extent
        return torch.cat([corner, corner + (0.05 + self._rand(rows, 2)) * extent / 2], 1)

    def box_pairs(self, rows: int, relation: str = "overlapping", extent: float = 64.0) -> tuple[Tensor, Tensor]:
        a = self.boxes(rows, extent)
        size = (a[:, 2:] - a[:, :2]).repeat(1, 2)
        if relation == "overlapping":
            b = a + (self._rand(rows, 4) - 0.5) * 0.6 * size
        elif relation == "identical":
            b = a.clone()
        elif relation == "disjoint":
            b = a + 3 * size
        elif relation == "touching":
            a, size = a.round(), size.round().clamp(min=1)  # whole numbers, so that edges meet exactly
            a[:, 2:] = a[:, :2] + size[:, 2:]
            b = a + size * torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
        elif relation == "nested":
            b = a + 0.2 * size * torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64)
        elif relation == "shared_edges":
            b = a.clone()
            b[:, 2] += size[:, 0]
        elif relation == "degenerate":  # points and segments, on either side or both
            b = self.boxes(rows, extent)
            a[::2, 2] = a[::2, 0]
            b[1::3, 3] = b[1::3, 1]
            b[::5] = a[::5, :2].repeat(1, 2)
            a[::4, 2:] = a[::4, :2]
        elif relation == "inverted":
            b = a + (self._rand(rows, 4) - 0.5) * size
            a[::2] = a[::2][:, [2, 1, 0, 3]]
            b[1::3] = b[1::3][:, [2, 3, 0, 1]]
        else:
            raise ValueError(relation)
        return a, b
