"""Dense heads: from pyramid levels to scores and boxes. A new one is a subclass of DenseHead and a row below."""

from __future__ import annotations

from typing import Any

from ..config import AblationHeadConfig, ATSSHeadConfig, GFLHeadConfig, HeadConfig
from .ablation import AblationHead
from .atss import ATSSHead
from .base import DenseHead
from .gfl import GFLHead

__all__ = ["ATSSHead", "AblationHead", "DenseHead", "GFLHead", "build_head"]

_HEADS: dict[type[HeadConfig], type[DenseHead[Any]]] = {
    GFLHeadConfig: GFLHead,
    ATSSHeadConfig: ATSSHead,
    AblationHeadConfig: AblationHead,
}


def build_head(config: HeadConfig, num_classes: int, in_channels: int) -> DenseHead[Any]:
    if type(config) not in _HEADS:
        known = ", ".join(kind.__name__ for kind in _HEADS)
        raise TypeError(f"build: head must be one of {known}, got {type(config).__name__}")
    return _HEADS[type(config)](config, num_classes, in_channels)
