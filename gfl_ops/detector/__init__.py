"""A reference detector built on this library's operations: GFL and ATSS on ResNet and ResNeXt with FPN.

model = gfl_ops.detector.build("gfl_r50_fpn", num_classes=80)
losses = model(images, targets)          # in training
detections = model.eval()(images)        # in evaluation
"""

from .checkpoint import CheckpointError, CheckpointMismatch, LoadReport, load_checkpoint, save_checkpoint
from .config import (
    ATSSHeadConfig,
    FPNConfig,
    GFLHeadConfig,
    HeadConfig,
    InputConfig,
    ModelConfig,
    PostprocessConfig,
    Published,
    Recipe,
    ResNetConfig,
)
from .export import export_onnx
from .folding import fold_batchnorm
from .model import Detector
from .zoo import build, get_config, list_models

__all__ = [
    "ATSSHeadConfig",
    "CheckpointError",
    "CheckpointMismatch",
    "Detector",
    "FPNConfig",
    "GFLHeadConfig",
    "HeadConfig",
    "InputConfig",
    "LoadReport",
    "ModelConfig",
    "PostprocessConfig",
    "Published",
    "Recipe",
    "ResNetConfig",
    "build",
    "export_onnx",
    "fold_batchnorm",
    "get_config",
    "list_models",
    "load_checkpoint",
    "save_checkpoint",
]
