"""Fused losses and box operations for dense detectors of the Generalized Focal Loss family."""

from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from . import nn
from ._dispatch import use_backend
from ._version import __version__
from .nn import (
    CIoULoss,
    DIoULoss,
    DistributionFocalLoss,
    GFLLoss,
    GIoULoss,
    Integral,
    IoULoss,
    KnowledgeDistillationKLDivLoss,
    QualityFocalLoss,
    SigmoidFocalLoss,
    SoftBCELoss,
    VarifocalLoss,
)
from .ops._cost_assignment import CostAssignment
from .ops._targets import PaddedTargets
from .ops.atss_assign import atss_assign
from .ops.box_iou import box_iou
from .ops.box_loss_maps import BoxLossMaps, box_loss_maps
from .ops.class_loss_maps import class_loss_maps
from .ops.decode_boxes import decode_boxes
from .ops.decode_maps import DecodedMaps, decode_maps
from .ops.distribution_box_loss import DistributionBoxLosses, distribution_box_loss
from .ops.distribution_focal_loss import distribution_focal_loss
from .ops.distribution_kl_loss import distribution_kl_loss
from .ops.distribution_statistics import distribution_statistics
from .ops.dynamic_soft_label_assign import dynamic_soft_label_assign
from .ops.fcos_assign import FcosAssignment, fcos_assign
from .ops.generalized_focal_loss import generalized_focal_loss
from .ops.gfl_loss import gfl_loss
from .ops.integral import integral
from .ops.iou_loss import ciou_loss, diou_loss, giou_loss, iou_loss
from .ops.max_iou_assign import MaxIouAssignment, max_iou_assign
from .ops.multilevel_sigmoid_focal_loss import multilevel_sigmoid_focal_loss
from .ops.multilevel_soft_bce_loss import multilevel_soft_bce_loss
from .ops.multilevel_varifocal_loss import multilevel_varifocal_loss
from .ops.nms import batched_nms, nms, nms_padded
from .ops.postprocess import Detections, postprocess
from .ops.quality_focal_loss import quality_focal_loss
from .ops.sigmoid_focal_loss import sigmoid_focal_loss
from .ops.simota_assign import simota_assign
from .ops.soft_bce_loss import soft_bce_loss
from .ops.task_aligned_assign import TaskAlignedAssignment, task_aligned_assign
from .ops.task_aligned_loss import task_aligned_loss
from .ops.varifocal_loss import varifocal_loss

if _TYPE_CHECKING:
    from . import detector

__all__ = [
    "BoxLossMaps",
    "CIoULoss",
    "CostAssignment",
    "DIoULoss",
    "DecodedMaps",
    "Detections",
    "DistributionBoxLosses",
    "DistributionFocalLoss",
    "FcosAssignment",
    "GFLLoss",
    "GIoULoss",
    "Integral",
    "IoULoss",
    "KnowledgeDistillationKLDivLoss",
    "MaxIouAssignment",
    "PaddedTargets",
    "QualityFocalLoss",
    "SigmoidFocalLoss",
    "SoftBCELoss",
    "TaskAlignedAssignment",
    "VarifocalLoss",
    "__version__",
    "atss_assign",
    "batched_nms",
    "box_iou",
    "box_loss_maps",
    "ciou_loss",
    "class_loss_maps",
    "decode_boxes",
    "decode_maps",
    "detector",
    "diou_loss",
    "distribution_box_loss",
    "distribution_focal_loss",
    "distribution_kl_loss",
    "distribution_statistics",
    "dynamic_soft_label_assign",
    "fcos_assign",
    "generalized_focal_loss",
    "gfl_loss",
    "giou_loss",
    "integral",
    "iou_loss",
    "max_iou_assign",
    "multilevel_sigmoid_focal_loss",
    "multilevel_soft_bce_loss",
    "multilevel_varifocal_loss",
    "nms",
    "nms_padded",
    "nn",
    "postprocess",
    "quality_focal_loss",
    "sigmoid_focal_loss",
    "simota_assign",
    "soft_bce_loss",
    "task_aligned_assign",
    "task_aligned_loss",
    "use_backend",
    "varifocal_loss",
]


def __getattr__(name: str) -> _Any:
    # On first use: the detector brings torch's compiler along, which takes seconds to import.
    if name != "detector":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return import_module(f"{__name__}.detector")
