"""Padded targets, for heads without a fused loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from gfl_ops import PaddedTargets

from .base import Targets


def padded(targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (B, G, 4) and labels (B, G) padded to one G >= 1, and the counts (B,)."""
    if isinstance(targets, PaddedTargets):
        boxes, labels, counts = targets
        return boxes, labels, torch.full_like(labels[:, 0], labels.shape[1]) if counts is None else counts
    device = targets[0]["boxes"].device
    boxes = pad_sequence([target["boxes"].float() for target in targets], batch_first=True)
    labels = pad_sequence([target["labels"].long() for target in targets], batch_first=True)
    counts = torch.tensor([len(target["boxes"]) for target in targets]).to(device, non_blocking=True)
    if boxes.shape[1] == 0:  # gather needs a row to point at
        boxes, labels = boxes.new_zeros(len(targets), 1, 4), labels.new_zeros(len(targets), 1)
    return boxes, labels, counts
