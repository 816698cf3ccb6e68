"""The box losses of a dense head on the compiled core."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..._arguments import compute_dtype, vector
from ..._native import as_map
from .._box_loss_maps import BOX_LOSS_MAPS, BoxLossMapsOp
from .._head_maps import BoxOptions

_LOSS = BoxLossMapsOp("box_loss_maps", BOX_LOSS_MAPS)


def box_loss_maps(
    bbox_preds: Sequence[Tensor],
    assigned_gt: Tensor,
    gt_boxes: Tensor,
    weights: Tensor,
    avg_factor: float | Tensor | None,
    options: BoxOptions,
) -> tuple[Tensor, Tensor, Tensor]:
    preds = [as_map(x) for x in bbox_preds]
    dtype = compute_dtype(preds[0])
    boxes = (
        *(assigned_gt.contiguous(), vector(weights, preds[0]), gt_boxes.to(dtype).contiguous()),
        *options.for_kernels(),
    )
    with torch.no_grad():
        quality, sums = BOX_LOSS_MAPS.forward(preds, *boxes)
        total_weight, num_pos = sums[3:].to(dtype).unbind()
        if isinstance(avg_factor, Tensor):
            total_weight = avg_factor.reshape(()).to(sums.device, dtype)
        elif avg_factor is not None:
            total_weight = torch.full_like(total_weight, avg_factor)
    loss_bbox, loss_dfl, _ = _LOSS(preds, sums, total_weight, num_pos, 1.0, 1.0, *boxes)
    return loss_bbox, loss_dfl, quality
