# mypy: disable-error-code="no-untyped-def"
"""The class losses of a head's maps as a Triton kernel, a launch for each level.

A program takes tiles of neighbouring positions of one image and walks through their classes in chunks, each as wide as
the axis that lies side by side in memory allows.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import _triton
from ._class_loss_triton import TILE, labelled, own_class
from ._multilevel_class_loss import MultilevelClassLoss, RawMultilevelLoss, gradients_of
from ._triton import effective_scale, number
from ._triton_maps import levels_of, map_strides, positions_adjoin, tile_of_map
from .atss_assign.reference import OUTSIDE

_OUTSIDE = tl.constexpr(OUTSIDE)
_SIZES = ["scale", "exponent", "alpha", "first_program", "tiles_each", "tiles", "positions", "first", "anchors"]


@triton.jit(do_not_specialize=_SIZES)
def multilevel_class_loss_kernel(
    partials, avg_factor, scale, exponent, alpha, first_program, tiles_each, tiles, positions, first, anchors,
    pred, labels, scores, grad_loss, grad,
    CLASSES: tl.constexpr, FORMULA: tl.constexpr, SQUARE: tl.constexpr, UNIT: tl.constexpr,
    POSITIONS_ADJOIN: tl.constexpr, BLOCK: tl.constexpr, BLOCK_CLASSES: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    exponent = number(exponent, DTYPE)
    alpha = number(alpha, DTYPE)
    if grad is not None:
        upstream = effective_scale(scale, avg_factor, DTYPE)
        if grad_loss is not None:
            upstream = upstream * tl.load(grad_loss)
    positions, position_stride, class_stride = map_strides(positions, CLASSES, UNIT, POSITIONS_ADJOIN)
    total = tl.zeros([], tl.float64)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        image, start = tile_of_map(tile, tiles_each, BLOCK)
        position = start + tl.arange(0, BLOCK)
        there = position < positions
        anchor = image * anchors + first + position
        label = tl.load(labels + anchor, mask=there, other=_OUTSIDE)
        row = image * positions * CLASSES + position * position_stride
        own, own_loss, own_grad = own_class(
            label, pred + row, class_stride, None if scores is None else scores + anchor, exponent, alpha,
            CLASSES, FORMULA, SQUARE, DTYPE,
        )  # fmt: skip
        own = tl.where(label == _OUTSIDE, _OUTSIDE, own)
        tile_loss = tl.zeros([BLOCK, BLOCK_CLASSES], DTYPE)
        for chunk in range(0, CLASSES, BLOCK_CLASSES):
            col = chunk + tl.arange(0, BLOCK_CLASSES)
            inside = tl.broadcast_to(there[:, None], [BLOCK, BLOCK_CLASSES])
            if CLASSES % BLOCK_CLASSES != 0:
                inside = inside & (col < CLASSES)[None, :]
            place = row[:, None] + (col * class_stride)[None, :]
            x = tl.load(pred + place, mask=inside, other=0.0)
            loss, slope = labelled(
                x, chunk, own, own_loss, own_grad, exponent, alpha, BLOCK_CLASSES, FORMULA, SQUARE
            )  # fmt: skip
            kept = tl.broadcast_to((own != _OUTSIDE)[:, None], [BLOCK, BLOCK_CLASSES])
            if grad is not None:
                slope = tl.where(kept, slope * upstream, 0.0)
                tl.store(grad + place, slope.to(grad.dtype.element_ty), mask=inside)
            if CLASSES % BLOCK_CLASSES != 0:
                kept = kept & (col < CLASSES)[None, :]
            tile_loss += tl.where(kept, loss, 0.0)
        if partials is not None:
            total += tl.sum(tl.sum(tile_loss, 1).to(tl.float64))
    if partials is not None:
        tl.store(partials + first_program + tl.program_id(0), total)


def _block(x: Tensor) -> tuple[int, int]:
    """Positions and classes of a chunk: 64 bytes of classes in the compute type where they lie side by side; where
    positions do, long runs of them, of a few classes at once."""
    compute_bytes = max(x.element_size(), 4)
    width = 8 if positions_adjoin(x) else 64 // compute_bytes
    width = min(width, _triton.power_of_two(max(x.shape[1], 1)))
    return TILE * 4 // compute_bytes // width, width


def _run(grad_loss: Tensor | None, loss: Tensor | None, grad: Tensor | None, *args: Any) -> None:
    a = MultilevelClassLoss(*args)
    pred = a.pred[0]
    grads = [None] * len(a.pred) if grad is None else gradients_of(grad, a.pred)
    levels = [(level, *_block(level.map)) for level in levels_of(a.pred)]
    tiles = [(level.tiles_each(block), level.tiles_each(block) * pred.shape[0]) for level, block, _ in levels]
    programs = [_triton.programs_for(of_all, pred) for _, of_all in tiles]
    partials = None if loss is None else torch.empty(sum(programs), dtype=torch.float64, device=pred.device)
    for i, (level, block, width) in enumerate(levels):
        positions, first, anchors = level.sizes()
        values = {
            **{"partials": partials, "first_program": sum(programs[:i]), "tiles_each": tiles[i][0]},
            **{"tiles": tiles[i][1], "positions": positions, "first": first, "anchors": anchors},
            **{"pred": level.map, "grad_loss": grad_loss, "grad": grads[i]},
            **{"CLASSES": pred.shape[1], "SQUARE": a.exponent == 2.0, "BLOCK": block, "BLOCK_CLASSES": width},
            **level.constants(),
            "DTYPE": _triton.compute_type(pred),
        }
        kernel = multilevel_class_loss_kernel
        _triton.launch(kernel, programs[i], pred, **_triton.arguments(kernel, a, values))
    if partials is not None:
        _triton.finish(partials, pred, (loss,), a.avg_factor, _triton.bits(a.scale))


MULTILEVEL_CLASS_LOSS = RawMultilevelLoss("triton_", _run, _triton.scale_gradient)
