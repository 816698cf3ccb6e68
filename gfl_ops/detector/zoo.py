"""The paper's models by name."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path

from .config import (
    ATSSHeadConfig,
    FPNConfig,
    GFLHeadConfig,
    InputConfig,
    ModelConfig,
    Published,
    Recipe,
    ResNetConfig,
)
from .model import Detector

_R50 = ResNetConfig(50)
_R101 = ResNetConfig(101)
_X101 = ResNetConfig(101, groups=32, group_width=4)
_MULTI_SCALE = InputConfig(train_short_sides=(480, 800))
_TWICE = Recipe(epochs=24, milestones=(16, 22))


def _on_coco(ap: float, config: str) -> Published:
    return Published(ap, "COCO val2017", f"mmdet's model zoo, {config}")


_MODELS = (
    ModelConfig("gfl_r50_fpn", _R50, GFLHeadConfig(), published=_on_coco(40.2, "gfl_r50_fpn_1x_coco")),
    ModelConfig(
        "gfl_r50_fpn_ms2x",
        _R50,
        GFLHeadConfig(),
        input=_MULTI_SCALE,
        recipe=_TWICE,
        published=_on_coco(42.9, "gfl_r50_fpn_ms-2x_coco"),
    ),
    ModelConfig(
        "gfl_r101_fpn",
        _R101,
        GFLHeadConfig(),
        input=_MULTI_SCALE,
        recipe=_TWICE,
        published=_on_coco(44.7, "gfl_r101_fpn_ms-2x_coco"),
    ),
    ModelConfig(
        "gfl_x101-32x4d",
        _X101,
        GFLHeadConfig(),
        input=_MULTI_SCALE,
        recipe=_TWICE,
        published=_on_coco(45.9, "gfl_x101-32x4d_fpn_ms-2x_coco"),
    ),
    ModelConfig("atss_r50_fpn", _R50, ATSSHeadConfig(), published=_on_coco(39.4, "atss_r50_fpn_1x_coco")),
    # For CPUs, from scratch: nothing is frozen, half of ResNet's width, a recipe that aims at ten minutes on two cores.
    ModelConfig(
        "gfl_r18_fpn_lite",
        ResNetConfig(18, base_channels=32, frozen_stages=-1, norm_eval=False),
        GFLHeadConfig(feat_channels=64, stacked_convs=2, norm_groups=16),
        neck=FPNConfig(out_channels=64),
        input=InputConfig(short_side=256, long_side=416),
        recipe=Recipe(
            iterations=1800,
            schedule="cosine",
            optimizer="adamw",
            learning_rate=2e-3,
            batch_size=8,
            weight_decay=0.05,
            warmup_iterations=100,
            clip_norm=10.0,
        ),
    ),
)
_BY_NAME = {config.name: config for config in _MODELS}


def list_models() -> list[str]:
    """The names that :func:`build` and :func:`get_config` know."""
    return list(_BY_NAME)


def get_config(name: str) -> ModelConfig:
    """The configuration of a model, with its recipe and published AP."""
    if name not in _BY_NAME:
        close = difflib.get_close_matches(str(name), _BY_NAME, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"build: model must be one of {', '.join(_BY_NAME)}, got {name!r}{hint}")
    return _BY_NAME[name]


def build(
    model: str | ModelConfig,
    num_classes: int = 80,
    *,
    weights: str | Path | None = None,
    checkpointing: bool = False,
) -> Detector:
    """A detector with fresh weights, or with those of a file.

    Args:
        model: a name from :func:`list_models`, or a configuration of your own; ``dataclasses.replace`` changes parts.
        num_classes: labels are 0 to num_classes - 1.
        weights: a file for :func:`load_checkpoint`: a whole detector, or an ImageNet backbone.
        checkpointing: recompute the backbone's blocks in the backward pass, to save memory.

    Without ``weights`` the stages that the configuration freezes stay random: train
    ``get_config(name).from_scratch()`` instead.

    Example:
        >>> model = build("gfl_r18_fpn_lite", num_classes=3).eval()
        >>> (detections,) = model([torch.rand(3, 120, 160)])
        >>> sorted(detections)
        ['boxes', 'labels', 'scores']
    """
    config = get_config(model) if isinstance(model, str) else model
    if not isinstance(config, ModelConfig):
        raise TypeError(f"build: model must be a name or a ModelConfig, got {type(model).__name__}")
    if checkpointing:
        config = replace(config, backbone=replace(config.backbone, checkpointing=True))
    detector = Detector(config, num_classes)
    if weights is not None:
        detector.load_checkpoint(weights)
    return detector
