"""What the losses of one logit per (row, class) are told about their targets and weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _arguments, _check
from ._formulas import widen

# ---- checks ------------------------------------------------------------------------------------------


def check_pred(op: str, pred: Any) -> None:
    _check.floating(op, "pred", pred)
    if pred.ndim != 2:
        raise ValueError(f"{op}: pred must be (N, C), got {tuple(pred.shape)}")


def check_target(op: str, target: Any, pred: Tensor) -> None:
    """(N, C) soft targets, or (label, score)."""
    rows = pred.shape[:1]
    if isinstance(target, Tensor):
        _check.companion(op, "target", target, pred, pred.shape, "(N, C)")
    elif isinstance(target, (tuple, list)) and len(target) == 2:
        label, score = target
        _check.labels(op, "label", label, pred, rows, "(N,)")
        _check.companion(op, "score", score, pred, rows, "(N,)")
    else:
        raise TypeError(f"{op}: target must be a tensor or (label, score), got {_what(target)}")


def _what(target: object) -> str:
    if isinstance(target, (tuple, list)):
        return f"{type(target).__name__} of {len(target)}"
    return type(target).__name__


def check_weight(op: str, weight: Any, pred: Tensor) -> None:
    """One a row or one an element."""
    _check.floating(op, "weight", weight)
    _check.detached(op, "weight", weight)
    _check.same_device(op, "weight", weight, pred)
    rows, cols = pred.shape
    if weight.shape not in ((rows,), (rows, cols), (rows, 1), (rows * cols,)):
        raise ValueError(
            f"{op}: weight must be (N,), (N, 1), (N, C) or (N * C,) with N, C = {rows}, {cols}, "
            f"got {tuple(weight.shape)}"
        )


def check_maps(op: str, preds: Any, labels: Any, reduction: Any, avg_factor: Any) -> None:
    """The maps of all levels, with labels in the order of the anchors."""
    _check.levels(op, "preds", preds)
    first = preds[0]
    for i, pred in enumerate(preds):
        _check.floating(op, f"preds[{i}]", pred)
        if pred.ndim != 4:
            raise ValueError(f"{op}: preds[{i}] must be (B, C, H, W), got {tuple(pred.shape)}")
        _check.map_like(op, f"preds[{i}]", pred, first, (*first.shape[:2], *pred.shape[2:]), "(B, C, H, W)")
    anchors = sum(pred.shape[2] * pred.shape[3] for pred in preds)
    _check.labels(op, "labels", labels, first, (first.shape[0], anchors), "(B, A)")
    _check.choice(op, "reduction", reduction, ("mean", "sum"))
    _check.reduction(op, reduction, avg_factor, first)


def check_scores(op: str, scores: Any, labels: Tensor, pred: Tensor) -> None:
    _check.companion(op, "scores", scores, pred, labels.shape, "(B, A)")


# ---- the form that kernels take ----------------------------------------------------------------------


def by_row_or_element(weight: Tensor | None, pred: Tensor) -> Tensor | None:
    """(N,) or (N, C)"""
    rows = pred.shape[0]
    if weight is None or weight.shape in ((rows,), pred.shape):
        return weight
    return weight[:, 0] if weight.shape == (rows, 1) else weight.reshape(pred.shape)


def of_target(
    target: Tensor | tuple[Tensor, Tensor], pred: Tensor
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """(dense, labels, scores)"""
    if isinstance(target, Tensor):
        return _arguments.target(target, pred), None, None
    return None, _arguments.labels(target[0]), _arguments.vector(target[1], pred)


# ---- the references' form ----------------------------------------------------------------------------


def one_hot(label: Tensor, num_classes: int) -> Tensor:
    """(N, C) of bool; a label outside [0, C) is background."""
    return label[:, None] == torch.arange(num_classes, device=label.device)


def score_at_label(label: Tensor, score: Tensor, num_classes: int) -> Tensor:
    """(N, C): the score at each positive's own class, 0 elsewhere."""
    return torch.where(one_hot(label, num_classes), score[:, None], 0.0)


def side_by_side(maps: Sequence[Tensor]) -> Tensor:
    """(B, C, H, W) of each level as one (B, A, C)."""
    return torch.cat([widen(x).flatten(2).mT for x in maps], 1)


def beside_elements(weight: Tensor | None, loss: Tensor) -> Tensor | None:
    """A weight as something that broadcasts with (N, C)."""
    if weight is None:
        return None
    return weight.reshape(-1, 1) if weight.numel() == loss.shape[0] else weight.reshape(loss.shape)
