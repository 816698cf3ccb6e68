"""Images and boxes to train on: COCO's format, synthetic scenes, augmentation, batches."""

from .augment import Augment
from .check import CheckReport, check
from .coco import BadData, CocoDetection, Finding
from .folders import find_split, open_split
from .images import BadImage, image_size, read_image
from .loader import Batch, EpochBatches, evaluation_loader, training_loader
from .sample import DetectionData, Sample
from .synthetic import SYNTHETIC_SIZE, SyntheticScenes

__all__ = [
    "SYNTHETIC_SIZE",
    "Augment",
    "BadData",
    "BadImage",
    "Batch",
    "CheckReport",
    "CocoDetection",
    "DetectionData",
    "EpochBatches",
    "Finding",
    "Sample",
    "SyntheticScenes",
    "check",
    "evaluation_loader",
    "find_split",
    "image_size",
    "open_split",
    "read_image",
    "training_loader",
]
