"""How a detector gets its images, selects its detections and was trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class InputConfig:
    """How images become a batch: see :func:`gfl_ops.detector.batch.make_batch`."""

    short_side: int = 800
    long_side: int = 1333
    train_short_sides: tuple[int, int] | None = None
    """In training each image's short side is drawn from this range; None takes ``short_side``."""
    divisor: int = 32
    fixed_size: tuple[int, int] | None = None
    """Height and width that every image is resized to, whatever its proportions; None keeps them."""
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    """Of ImageNet, in 0..255 and in the order of ``channels``."""
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    channels: Literal["rgb", "bgr"] = "rgb"
    train_short_side_choices: tuple[int, ...] | None = None
    """In training each image's short side is one of these."""


@dataclass(frozen=True)
class PostprocessConfig:
    """Arguments of :func:`gfl_ops.postprocess`. Heads without edge distributions use them in the same way."""

    score_thr: float = 0.05
    nms_pre: int = 1000
    iou_thr: float = 0.6
    max_per_img: int = 100
    min_size: float = 0.0
    """Boxes whose sides are not longer are dropped; -1 keeps all."""
    border: float = 0.0
    """Boxes are clipped to the image without its last ``border`` pixels."""


@dataclass(frozen=True)
class Recipe:
    """How the published weights were trained. The learning rate belongs to the batch size; scale them together."""

    epochs: int = 12
    iterations: int | None = None
    """Length in iterations. Where it is given, ``epochs`` is ignored."""
    schedule: Literal["step", "cosine"] = "step"
    milestones: tuple[int, ...] = (8, 11)
    """Epochs after which the learning rate is divided by 10, where the schedule is "step"."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.01
    batch_size: int = 16
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup_iterations: int = 500
    warmup_factor: float = 0.001
    """The warmup starts at this fraction of the learning rate."""
    warmup: Literal["linear", "constant"] = "linear"
    """It grows to all of the learning rate, or stays at that fraction to its end."""
    bias_rate: float = 1.0
    """Factor of the learning rate of the convolutions' biases."""
    bias_decay: float = 1.0
    """Factor of the weight decay of all biases."""
    no_decay: tuple[str, ...] | None = None
    """Parameters with one of these in their name have no weight decay. None: with AdamW, those of one dimension."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    photometric: bool = False
    crop: bool = False
    expand: bool = False
    overlap_crop: bool = False
    distort: bool = False
    """See :class:`gfl_ops.detector.data.Augment`."""
    clip_norm: float | None = None
    """Limit of the gradients' norm."""
    ema: float | None = None
    """Decay of a moving average of the weights, which is evaluated in their place."""
    repeat: int = 1
    """How often an epoch shows each image."""


@dataclass(frozen=True)
class Published:
    """What others report for this model on COCO. It is not a measurement of this implementation."""

    ap: float
    dataset: str
    source: str
