"""The configuration of a detector and its parts. Each model of the zoo is a :class:`ModelConfig`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal


@dataclass(frozen=True)
class ResNetConfig:
    """ResNet, or ResNeXt where ``groups`` > 1."""

    depth: int = 50
    groups: int = 1
    group_width: int = 64
    """Channels of one group in the first stage's 3x3 convolutions."""
    base_channels: int = 64
    frozen_stages: int = 1
    """How many stages, the stem among them, are not trained: -1 none, 0 the stem, 1 the stem and layer1, ..."""
    norm_eval: bool = True
    """Batch normalisation keeps the statistics that were loaded."""
    checkpointing: bool = False
    """Recompute each block in the backward pass: less memory, about a third more time."""


@dataclass(frozen=True)
class FPNConfig:
    out_channels: int = 256
    start_level: int = 1
    num_levels: int = 5
    extra_source: Literal["output", "input"] = "output"
    """Input of the first extra level: the output of the last level, or the backbone's last stage."""


@dataclass(frozen=True)
class HeadConfig:
    """What all dense heads have in common."""

    feat_channels: int = 256
    stacked_convs: int = 4
    norm_groups: int | None = 32
    """Group normalisation of the stacked convolutions; None for none, and a bias instead."""
    strides: tuple[int, ...] = (8, 16, 32, 64, 128)


@dataclass(frozen=True)
class GFLHeadConfig(HeadConfig):
    reg_max: int = 16
    beta: float = 2.0
    loss_weights: tuple[float, float, float] = (1.0, 2.0, 0.25)
    """Of quality focal loss, GIoU and distribution focal loss."""


@dataclass(frozen=True)
class ATSSHeadConfig(HeadConfig):
    gamma: float = 2.0
    alpha: float = 0.25
    loss_weights: tuple[float, float, float] = (1.0, 2.0, 1.0)
    """Of focal loss, GIoU and centerness."""


@dataclass(frozen=True)
class AblationHeadConfig(ATSSHeadConfig):
    """ATSS with one of GFL's two losses: see :class:`~gfl_ops.detector.heads.ablation.AblationHead`."""

    quality_focal: bool = False
    distribution: bool = False
    reg_max: int = 16
    beta: float = 2.0
    dfl_weight: float = 0.25


@dataclass(frozen=True)
class InputConfig:
    """How images become a batch: see :func:`gfl_ops.detector.preprocess.make_batch`."""

    short_side: int = 800
    long_side: int = 1333
    train_short_sides: tuple[int, int] | None = None
    """In training each image's short side is drawn from this range; None takes ``short_side``."""
    divisor: int = 32


@dataclass(frozen=True)
class PostprocessConfig:
    """Arguments of :func:`gfl_ops.postprocess`. Heads without edge distributions use them in the same way."""

    score_thr: float = 0.05
    nms_pre: int = 1000
    iou_thr: float = 0.6
    max_per_img: int = 100
    min_size: float = 0.0


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
    """The warmup starts at this fraction of the learning rate and grows linearly to all of it."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    photometric: bool = False
    crop: bool = False
    """See :class:`gfl_ops.detector.data.Augment`."""
    clip_norm: float | None = None
    """Limit of the gradients' norm."""
    ema: float | None = None
    """Decay of a moving average of the weights, which is evaluated in their place."""


@dataclass(frozen=True)
class Published:
    """What others report for this model on COCO. It is not a measurement of this implementation."""

    ap: float
    dataset: str
    source: str


@dataclass(frozen=True)
class ModelConfig:
    name: str
    backbone: ResNetConfig
    head: HeadConfig
    neck: FPNConfig = field(default_factory=FPNConfig)
    input: InputConfig = field(default_factory=InputConfig)
    postprocess: PostprocessConfig = field(default_factory=PostprocessConfig)
    recipe: Recipe = field(default_factory=Recipe)
    published: Published | None = None

    def from_scratch(self) -> ModelConfig:
        """The same model with nothing frozen, for training without pretrained backbone weights."""
        return replace(self, backbone=replace(self.backbone, frozen_stages=-1, norm_eval=False))
