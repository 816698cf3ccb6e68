"""Models by name."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path

from ..config import ModelConfig
from ..heads import HeadConfig
from ..model import Detector
from . import atss, fcos, fovea, gfl, gflv2, lite, retinanet, ssd, variants

_FAMILIES = (gfl, gflv2, atss, fcos, retinanet, fovea, ssd, lite)
_MODELS = [row.name for family in _FAMILIES for row in family.MODELS]
_BY_NAME = {row.name: row for family in (*_FAMILIES, variants) for row in family.MODELS}
_ALIASES = {**fcos.ALIASES, **variants.ALIASES}


def list_models(*, variants: bool = False) -> list[str]:
    """The names that :func:`build` knows; with ``variants`` also those of the paper's tables."""
    return list(_BY_NAME) if variants else list(_MODELS)


def get_config(name: str) -> ModelConfig:
    """The configuration of a model, with its recipe and published AP. A short alias of a name will do."""
    name = _ALIASES.get(name, name)
    if name not in _BY_NAME:
        close = difflib.get_close_matches(str(name), [*_BY_NAME, *_ALIASES], n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"build: model must be one of {', '.join(_MODELS)}, got {name!r}{hint}")
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
    if not isinstance(config.head, HeadConfig):
        raise TypeError(f"build: head must be a HeadConfig, got {type(config.head).__name__}")
    if checkpointing:
        config = replace(config, backbone=replace(config.backbone, checkpointing=True))
    detector = Detector(config, num_classes)
    if weights is not None:
        detector.load_checkpoint(weights)
    return detector
