"""A reference detector built on this library's operations, and every detector of the Generalized Focal Loss paper.

model = gfl_ops.detector.build("gfl_r50_fpn", num_classes=80)
losses = model(images, targets)          # in training
detections = model.eval()(images)        # in evaluation

A model is a :class:`ModelConfig` of parts: a backbone, a neck, and a head of parts (:mod:`gfl_ops.detector.heads`).
"""

from .backbones import ResNetConfig, VGGConfig
from .checkpoint import CheckpointError, CheckpointMismatch, LoadReport, load_checkpoint, save_checkpoint
from .config import ModelConfig
from .export import export_onnx
from .folding import fold_batchnorm
from .heads import HeadConfig
from .model import Detector
from .necks import FPNConfig, SSDExtraConfig
from .settings import InputConfig, PostprocessConfig, Published, Recipe
from .zoo import build, get_config, list_models
from .zoo.atss import atss_head
from .zoo.gfl import gfl_head

__all__ = [
    "CheckpointError",
    "CheckpointMismatch",
    "Detector",
    "FPNConfig",
    "HeadConfig",
    "InputConfig",
    "LoadReport",
    "ModelConfig",
    "PostprocessConfig",
    "Published",
    "Recipe",
    "ResNetConfig",
    "SSDExtraConfig",
    "VGGConfig",
    "atss_head",
    "build",
    "export_onnx",
    "fold_batchnorm",
    "get_config",
    "gfl_head",
    "list_models",
    "load_checkpoint",
    "save_checkpoint",
]
