"""Detectors that are small enough for a test."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gfl_ops import detector


def thin(towers: Any) -> Any:
    return replace(towers, feat_channels=16, stacked_convs=1, norm_groups=towers.norm_groups and 4)


def small(name: str, **backbone: Any) -> detector.ModelConfig:
    """A zoo model's kind of head and backbone, thin enough for a test."""
    config = detector.get_config(name)
    return replace(
        config,
        backbone=replace(config.backbone, base_channels=16, group_width=4, **backbone),
        neck=replace(config.neck, out_channels=16),
        head=replace(config.head, towers=thin(config.head.towers)),
    )
