"""The IoU family of box losses."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ... import _check, _reduce
from ..._dispatch import kernels_for
from . import native, reference


def iou_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    kind: str = "giou",
    eps: float = 1e-7,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    *,
    transform: str = "linear",
    eps_rule: str = "floor",
    _loss_weight: float = 1.0,
) -> Tensor:
    """1 - similarity of each predicted box with its target, both (x1, y1, x2, y2).

    The similarity depends on ``kind``:

    - ``"iou"``: intersection over union. The union is at least 1e-6, the result at least eps.
    - ``"giou"``: IoU minus the share of the enclosing box that neither box covers.
    - ``"diou"``: IoU minus the squared distance of the centres over the squared diagonal of the enclosing box.
    - ``"ciou"``: DIoU minus a term for the difference of the aspect ratios. Identical boxes give a loss of 0.

    Args:
        pred: (N, 4).
        target: (N, 4).
        weight: (N,), multiplies the rows; or (N, 4), whose columns are averaged first.
        kind: ``"iou"``, ``"giou"``, ``"diou"`` or ``"ciou"``.
        eps: keeps denominators from 0.
        reduction: ``"none"`` gives (N,), ``"mean"`` divides by N, ``"sum"`` adds.
        avg_factor: with ``"mean"``, what to divide by instead: a number, or a tensor of one value.
        transform: for kind ``"iou"``: ``"linear"`` is 1 - iou, ``"square"`` 1 - iou^2, ``"log"`` -log(iou).
        eps_rule: for ``"iou"`` and ``"giou"``: ``"floor"`` uses max(denominator, eps) as mmdet does, ``"add"`` adds eps
            to the denominator as torchvision does.

    Returns:
        float32 (float64 for float64 pred): a scalar, or (N,).

    Example:
        >>> box = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> iou_loss(box, box + 1, kind="iou").item()
        0.8571428656578064
    """
    op = "iou_loss"
    _check.choice(op, "kind", kind, tuple(native.KINDS))
    _check.choice(op, "transform", transform, tuple(native.TRANSFORMS))
    _check.choice(op, "eps_rule", eps_rule, tuple(native.EPS_RULES))
    if transform != "linear" and kind != "iou":
        raise ValueError(f"{op}: transform {transform!r} needs kind 'iou', got kind {kind!r}")
    if eps_rule != "floor" and kind not in ("iou", "giou"):
        raise ValueError(f"{op}: eps_rule {eps_rule!r} needs kind 'iou' or 'giou', got kind {kind!r}")
    return _loss(op, pred, target, weight, kind, eps, reduction, avg_factor, transform, eps_rule, _loss_weight)


def giou_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    eps: float = 1e-7,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    *,
    eps_rule: str = "floor",
    _loss_weight: float = 1.0,
) -> Tensor:
    """:func:`iou_loss` with kind ``"giou"``."""
    _check.choice("giou_loss", "eps_rule", eps_rule, tuple(native.EPS_RULES))
    return _loss(
        "giou_loss", pred, target, weight, "giou", eps, reduction, avg_factor, "linear", eps_rule, _loss_weight
    )


def diou_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    eps: float = 1e-7,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    *,
    _loss_weight: float = 1.0,
) -> Tensor:
    """:func:`iou_loss` with kind ``"diou"``."""
    return _loss("diou_loss", pred, target, weight, "diou", eps, reduction, avg_factor, "linear", "floor", _loss_weight)


def ciou_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    eps: float = 1e-7,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    *,
    _loss_weight: float = 1.0,
) -> Tensor:
    """:func:`iou_loss` with kind ``"ciou"``."""
    return _loss("ciou_loss", pred, target, weight, "ciou", eps, reduction, avg_factor, "linear", "floor", _loss_weight)


def _loss(
    op: str,
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None,
    kind: str,
    eps: float,
    reduction: str,
    avg_factor: float | Tensor | None,
    transform: str,
    eps_rule: str,
    loss_weight: float,
) -> Tensor:
    _checked(op, pred, target, weight, eps, reduction, avg_factor)
    if weight is not None and weight.ndim == 2:
        weight = weight.mean(-1)
    kernels = kernels_for("iou_loss", pred, native)
    if kernels is not None:
        return kernels.iou_loss(
            pred, target, weight, kind, eps, reduction, avg_factor, transform, eps_rule, loss_weight
        )
    loss = reference.iou_loss(
        pred, target, weight, kind, eps, reduction, avg_factor, transform=transform, eps_rule=eps_rule
    )
    return _reduce.weighted(loss, loss_weight)


def _check_arguments(op: str, pred: Any, target: Any, weight: Any, eps: Any, reduction: Any, avg_factor: Any) -> None:
    _check.boxes(op, "pred", pred)
    _check.companion(op, "target", target, pred, pred.shape, "(N, 4)")
    if weight is not None:
        by_column = isinstance(weight, Tensor) and weight.ndim == 2
        expected, words = (pred.shape, "(N, 4)") if by_column else (pred.shape[:1], "(N,) or (N, 4)")
        _check.companion(op, "weight", weight, pred, expected, words)
    _check.number(op, "eps", eps, 0)
    _check.reduction(op, reduction, avg_factor, pred)


_checked = _check.Checked(_check_arguments)
