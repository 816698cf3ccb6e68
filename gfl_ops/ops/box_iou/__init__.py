"""The overlap of boxes."""

from __future__ import annotations

from torch import Tensor

from ... import _check
from ..._dispatch import kernels_for
from ..._op import wants_gradient
from . import native, reference


def box_iou(a: Tensor, b: Tensor, *, aligned: bool = False, eps: float = 1e-6) -> Tensor:
    """Intersection over union of boxes (x1, y1, x2, y2).

    If a or b requires grad, the reference backend computes it, because only that one is differentiable. For training
    use :func:`iou_loss`.

    Args:
        a: (N, 4).
        b: (M, 4); (N, 4) with ``aligned=True``.
        aligned: compare each row of a with the same row of b, not with all rows.
        eps: the union is at least this.

    Returns:
        float32 (float64 for float64 boxes): (N, M), or (N,) with ``aligned=True``.

    Example:
        >>> box = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> box_iou(box, box + 1).tolist()
        [[0.1428571492433548]]
    """
    op = "box_iou"
    _check.boxes(op, "a", a)
    _check.boxes(op, "b", b)
    _check.same_device(op, "b", b, a)
    _check.flag(op, "aligned", aligned)
    if aligned and a.shape != b.shape:
        raise ValueError(f"{op}: b must be (N, 4) = {tuple(a.shape)} like a with aligned=True, got {tuple(b.shape)}")
    _check.number(op, "eps", eps, 0)
    kernels = kernels_for(op, a, native)
    if kernels is not None and not wants_gradient(a, b):
        return kernels.box_iou(a, b, aligned, eps)
    return reference.box_iou(a, b, aligned=aligned, eps=eps)
