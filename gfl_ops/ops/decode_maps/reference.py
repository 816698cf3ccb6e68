"""The boxes of all cells of a dense head, and where the cells are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._class_targets import side_by_side
from ..atss_assign.reference import anchor_grid
from ..integral.reference import integral


def distances(bbox_preds: Sequence[Tensor]) -> Tensor:
    """(B, A, 4) to the left, top, right and bottom, in strides."""
    edges = side_by_side(bbox_preds)  # (B, A, 4 * bins)
    return edges if edges.shape[2] == 4 else integral(edges, num_bins=edges.shape[2] // 4)


def decode_maps(bbox_preds: Sequence[Tensor], strides: Sequence[float], center_offset: float) -> tuple[Tensor, Tensor]:
    reach = distances(bbox_preds)
    points, pixels = anchor_grid(reach, [(x.shape[2], x.shape[3]) for x in bbox_preds], strides, center_offset)
    reach = reach * pixels
    return torch.cat([points - reach[..., :2], points + reach[..., 2:]], 2), points
