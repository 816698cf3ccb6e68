"""The losses and the integral as modules with the constructor and forward arguments of mmdet 3.x.

In a config only the name of the class changes. mmdet's classes check on the host whether a weight is all zero; these
do not wait for the GPU, and give zero as well.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .ops.distribution_focal_loss import distribution_focal_loss
from .ops.distribution_kl_loss import distribution_kl_loss
from .ops.gfl_loss import PaddedTargets, gfl_loss
from .ops.integral import integral
from .ops.iou_loss import ciou_loss, diou_loss, giou_loss, iou_loss
from .ops.quality_focal_loss import quality_focal_loss
from .ops.sigmoid_focal_loss import sigmoid_focal_loss
from .ops.soft_bce_loss import soft_bce_loss
from .ops.varifocal_loss import varifocal_loss

__all__ = [
    "CIoULoss",
    "DIoULoss",
    "DistributionFocalLoss",
    "GFLLoss",
    "GIoULoss",
    "Integral",
    "IoULoss",
    "KnowledgeDistillationKLDivLoss",
    "QualityFocalLoss",
    "SigmoidFocalLoss",
    "SoftBCELoss",
    "VarifocalLoss",
]


class _Loss(nn.Module):
    """loss_weight * function(pred, target, ...), reduced as the constructor says unless the call overrides it."""

    _function: Callable[..., Tensor]

    def __init__(self, reduction: str, loss_weight: float) -> None:
        super().__init__()
        if reduction not in ("none", "mean", "sum"):
            raise ValueError(f"{type(self).__name__}: reduction must be 'none', 'mean' or 'sum', got {reduction!r}")
        self.reduction = reduction
        self.loss_weight = loss_weight

    def _formula(self) -> dict[str, Any]:
        """The function's arguments that the constructor fixed. Read at every call: an attribute may be changed."""
        return {}

    def forward(
        self,
        pred: Tensor,
        target: Tensor | tuple[Tensor, Tensor],
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
        **kwargs: Any,
    ) -> Tensor:
        return self._function(
            pred,
            target,
            weight,
            reduction=self.reduction if reduction_override is None else reduction_override,
            avg_factor=avg_factor,
            _loss_weight=self.loss_weight,
            **self._formula(),
            **kwargs,
        )

    def extra_repr(self) -> str:
        return _arguments(self)


def _arguments(module: nn.Module) -> str:
    names = [name for name in inspect.signature(type(module)).parameters if hasattr(module, name)]
    return ", ".join(f"{name}={getattr(module, name)!r}" for name in names)


def _require_sigmoid(module: nn.Module, use_sigmoid: bool) -> None:
    if not use_sigmoid:
        raise ValueError(
            f"{type(module).__name__}: use_sigmoid must be True, got {use_sigmoid!r}; there is no softmax version"
        )


class QualityFocalLoss(_Loss):
    """:func:`gfl_ops.quality_focal_loss` of (N, C) logits, or of probabilities with ``activated=True``."""

    _function = staticmethod(quality_focal_loss)

    def __init__(
        self,
        use_sigmoid: bool = True,
        beta: float = 2.0,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        activated: bool = False,
    ) -> None:
        super().__init__(reduction, loss_weight)
        _require_sigmoid(self, use_sigmoid)
        self.use_sigmoid = use_sigmoid
        self.beta = beta
        self.activated = activated

    def _formula(self) -> dict[str, Any]:
        return {"beta": self.beta, "activated": self.activated}


class SigmoidFocalLoss(_Loss):
    """:func:`gfl_ops.sigmoid_focal_loss` of (N, C) logits: mmdet's FocalLoss."""

    _function = staticmethod(sigmoid_focal_loss)

    def __init__(
        self,
        use_sigmoid: bool = True,
        gamma: float = 2.0,
        alpha: float = 0.25,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        activated: bool = False,
    ) -> None:
        super().__init__(reduction, loss_weight)
        _require_sigmoid(self, use_sigmoid)
        if activated:
            raise ValueError(f"SigmoidFocalLoss: activated must be False, got {activated!r}; pred must be logits")
        self.use_sigmoid = use_sigmoid
        self.gamma = gamma
        self.alpha = alpha
        self.activated = activated

    def _formula(self) -> dict[str, Any]:
        return {"gamma": self.gamma, "alpha": self.alpha}


class VarifocalLoss(_Loss):
    """:func:`gfl_ops.varifocal_loss` of (N, C) logits."""

    _function = staticmethod(varifocal_loss)

    def __init__(
        self,
        use_sigmoid: bool = True,
        alpha: float = 0.75,
        gamma: float = 2.0,
        iou_weighted: bool = True,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        detach_factor: bool = False,
    ) -> None:
        super().__init__(reduction, loss_weight)
        _require_sigmoid(self, use_sigmoid)
        self.use_sigmoid = use_sigmoid
        self.alpha = alpha
        self.gamma = gamma
        self.iou_weighted = iou_weighted
        self.detach_factor = detach_factor

    def _formula(self) -> dict[str, Any]:
        names = ("alpha", "gamma", "iou_weighted", "detach_factor")
        return {name: getattr(self, name) for name in names}


class SoftBCELoss(_Loss):
    """:func:`gfl_ops.soft_bce_loss` of (N, C) logits; a class_weight moves with the module, as buffers do."""

    _function = staticmethod(soft_bce_loss)
    class_weight: Tensor | None

    def __init__(
        self, reduction: str = "mean", loss_weight: float = 1.0, class_weight: Tensor | Sequence[float] | None = None
    ) -> None:
        super().__init__(reduction, loss_weight)
        given = None if class_weight is None else torch.as_tensor(class_weight)
        self.register_buffer("class_weight", given, persistent=False)

    def _formula(self) -> dict[str, Any]:
        return {"class_weight": self.class_weight}


class DistributionFocalLoss(_Loss):
    """:func:`gfl_ops.distribution_focal_loss` of (N, bins) logits."""

    _function = staticmethod(distribution_focal_loss)

    def __init__(self, reduction: str = "mean", loss_weight: float = 1.0) -> None:
        super().__init__(reduction, loss_weight)


class KnowledgeDistillationKLDivLoss(_Loss):
    """:func:`gfl_ops.distribution_kl_loss` of (N, bins) logits and a teacher's, the mean over the bins.

    Localization distillation has it on the edges' distributions, a head's knowledge distillation on its classes.
    """

    def __init__(self, reduction: str = "mean", loss_weight: float = 1.0, T: int = 10) -> None:
        super().__init__(reduction, loss_weight)
        if T < 1:
            raise ValueError(f"KnowledgeDistillationKLDivLoss: T must be at least 1, got {T}")
        self.T = T

    def forward(  # type: ignore[override]
        self,
        pred: Tensor,
        soft_label: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        return distribution_kl_loss(
            pred,
            soft_label.detach(),
            self.T,
            weight,
            self.reduction if reduction_override is None else reduction_override,
            avg_factor,
            bin_reduction="mean",
            _loss_weight=self.loss_weight,
        )


class IoULoss(_Loss):
    """IoU loss of aligned xyxy boxes: ``mode`` "log" is -log(IoU), "linear" 1 - IoU, "square" 1 - IoU^2.

    ``linear=True`` is the older way to write ``mode="linear"``.
    """

    _function = staticmethod(iou_loss)

    def __init__(
        self,
        linear: bool = False,
        eps: float = 1e-6,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        mode: str = "log",
    ) -> None:
        super().__init__(reduction, loss_weight)
        if mode not in ("linear", "square", "log"):
            raise ValueError(f"IoULoss: mode must be 'linear', 'square' or 'log', got {mode!r}")
        self.mode = "linear" if linear else mode
        self.linear = linear
        self.eps = eps

    def _formula(self) -> dict[str, Any]:
        return {"kind": "iou", "transform": self.mode, "eps": self.eps}


class _EpsLoss(_Loss):
    def __init__(self, eps: float = 1e-6, reduction: str = "mean", loss_weight: float = 1.0) -> None:
        super().__init__(reduction, loss_weight)
        self.eps = eps

    def _formula(self) -> dict[str, Any]:
        return {"eps": self.eps}


class GIoULoss(_EpsLoss):
    """:func:`gfl_ops.giou_loss` of aligned xyxy boxes."""

    _function = staticmethod(giou_loss)


class DIoULoss(_EpsLoss):
    """:func:`gfl_ops.diou_loss` of aligned xyxy boxes."""

    _function = staticmethod(diou_loss)


class CIoULoss(_EpsLoss):
    """:func:`gfl_ops.ciou_loss` of aligned xyxy boxes."""

    _function = staticmethod(ciou_loss)


class Integral(nn.Module):
    """:func:`gfl_ops.integral` over the bins 0 to reg_max: (..., 4 * (reg_max + 1)) logits to (-1, 4) expectations."""

    project: Tensor

    def __init__(self, reg_max: int = 16) -> None:
        super().__init__()
        self.reg_max = reg_max
        self.register_buffer("project", torch.linspace(0, reg_max, reg_max + 1))

    def forward(self, x: Tensor) -> Tensor:
        return integral(x.reshape(-1, 4 * (self.reg_max + 1)), self.project)

    def extra_repr(self) -> str:
        return _arguments(self)


class GFLLoss(nn.Module):
    """:func:`gfl_ops.gfl_loss` of a head with num_classes classes and reg_max + 1 bins for each side."""

    def __init__(
        self,
        num_classes: int,
        reg_max: int = 16,
        strides: Sequence[float] = (8, 16, 32, 64, 128),
        beta: float = 2.0,
        loss_weights: tuple[float, float, float] = (1.0, 2.0, 0.25),
        topk: int = 9,
        iou_kind: str = "giou",
        eps: float = 1e-6,
        target_margin: float = 0.1,
        anchor_scale: float = 8.0,
        center_offset: float = 0.0,
        eps_rule: str = "floor",
        alpha_rule: str = "half",
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.reg_max = reg_max
        self.strides = tuple(strides)
        self.beta = beta
        self.loss_weights = tuple(loss_weights)
        self.topk = topk
        self.iou_kind = iou_kind
        self.eps = eps
        self.target_margin = target_margin
        self.anchor_scale = anchor_scale
        self.center_offset = center_offset
        self.eps_rule = eps_rule
        self.alpha_rule = alpha_rule

    def forward(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        targets: Sequence[Mapping[str, Tensor]] | PaddedTargets,
        valid_shapes: Tensor | None = None,
    ) -> dict[str, Tensor]:
        self._check_channels("cls_scores", cls_scores, self.num_classes)
        self._check_channels("bbox_preds", bbox_preds, 4 * (self.reg_max + 1))
        return gfl_loss(
            cls_scores,
            bbox_preds,
            targets,
            valid_shapes,
            strides=self.strides,
            beta=self.beta,
            loss_weights=self.loss_weights,  # type: ignore[arg-type]
            topk=self.topk,
            iou_kind=self.iou_kind,
            eps=self.eps,
            target_margin=self.target_margin,
            anchor_scale=self.anchor_scale,
            center_offset=self.center_offset,
            eps_rule=self.eps_rule,
            alpha_rule=self.alpha_rule,
        )

    @staticmethod
    def _check_channels(name: str, maps: Sequence[Tensor], channels: int) -> None:
        for i, x in enumerate(maps):
            if isinstance(x, Tensor) and x.ndim == 4 and x.shape[1] != channels:
                raise ValueError(f"GFLLoss: {name}[{i}] must have {channels} channels, got {tuple(x.shape)}")

    def extra_repr(self) -> str:
        return _arguments(self)
