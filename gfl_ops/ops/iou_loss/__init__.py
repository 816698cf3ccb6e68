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
    alpha_rule: str = "half",
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
        eps_rule: ``"floor"`` is what mmdet does: max(denominator, eps) for ``"iou"`` and ``"giou"``; ``"diou"`` and
            ``"ciou"`` add eps, clamp the sides of the enclosing box at 0, and CIoU to [-1, 1]. ``"add"`` adds eps to
            every denominator and has none of these clamps, as torchvision and ultralytics have none.
        alpha_rule: for ``"ciou"``: with ``"half"`` the term for the aspect ratios counts where the IoU exceeds 0.5, as
            in mmdet; with ``"always"`` everywhere, as in torchvision and ultralytics.

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
    if transform != "linear" and kind != "iou":
        raise ValueError(f"{op}: transform {transform!r} needs kind 'iou', got kind {kind!r}")
    check_rules(op, kind, eps_rule, alpha_rule)
    rules = transform, eps_rule, alpha_rule
    return _loss(op, pred, target, weight, kind, eps, reduction, avg_factor, rules, _loss_weight)


def check_rules(op: str, kind: str, eps_rule: str, alpha_rule: str) -> None:
    _check.choice(op, "eps_rule", eps_rule, tuple(native.EPS_RULES))
    _check.choice(op, "alpha_rule", alpha_rule, tuple(native.ALPHA_RULES))
    if alpha_rule != "half" and kind != "ciou":
        raise ValueError(f"{op}: alpha_rule {alpha_rule!r} needs kind 'ciou', got kind {kind!r}")


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
    check_rules("giou_loss", "giou", eps_rule, "half")
    rules = "linear", eps_rule, "half"
    return _loss("giou_loss", pred, target, weight, "giou", eps, reduction, avg_factor, rules, _loss_weight)


def diou_loss(
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
    """:func:`iou_loss` with kind ``"diou"``."""
    check_rules("diou_loss", "diou", eps_rule, "half")
    rules = "linear", eps_rule, "half"
    return _loss("diou_loss", pred, target, weight, "diou", eps, reduction, avg_factor, rules, _loss_weight)


def ciou_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    eps: float = 1e-7,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    *,
    eps_rule: str = "floor",
    alpha_rule: str = "half",
    _loss_weight: float = 1.0,
) -> Tensor:
    """:func:`iou_loss` with kind ``"ciou"``.

    As it stands it is mmdet's. ``eps_rule="add", alpha_rule="always"`` make it torchvision's and ultralytics'.
    """
    check_rules("ciou_loss", "ciou", eps_rule, alpha_rule)
    rules = "linear", eps_rule, alpha_rule
    return _loss("ciou_loss", pred, target, weight, "ciou", eps, reduction, avg_factor, rules, _loss_weight)


def _loss(
    op: str,
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None,
    kind: str,
    eps: float,
    reduction: str,
    avg_factor: float | Tensor | None,
    rules: tuple[str, str, str],
    loss_weight: float,
) -> Tensor:
    """rules: transform, eps_rule, alpha_rule"""
    _checked(op, pred, target, weight, eps, reduction, avg_factor)
    if weight is not None and weight.ndim == 2:
        weight = weight.mean(-1)
    kernels = kernels_for("iou_loss", pred, native)
    if kernels is not None:
        return kernels.iou_loss(pred, target, weight, kind, eps, reduction, avg_factor, *rules, loss_weight)
    transform, eps_rule, alpha_rule = rules
    options = {"transform": transform, "eps_rule": eps_rule, "alpha_rule": alpha_rule}
    loss = reference.iou_loss(pred, target, weight, kind, eps, reduction, avg_factor, **options)
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
