"""What rows of several families have in common."""

from __future__ import annotations

from dataclasses import replace

from ..backbones import ResNetConfig
from ..config import ModelConfig
from ..heads import HeadConfig
from ..settings import InputConfig, Published, Recipe

R50 = ResNetConfig(50)
R101 = ResNetConfig(101)
X101 = ResNetConfig(101, groups=32, group_width=4)
CAFFE_R50 = ResNetConfig(50, style="caffe", train_norms=False)
TWICE = Recipe(epochs=24, milestones=(16, 22))
BYTES = (1.0, 1.0, 1.0)  # a deviation of 1: pixels less their mean


def multi_scale(short: int, long: int) -> InputConfig:
    return InputConfig(train_short_sides=(short, long))


def on_coco(ap: float, config: str, source: str = "mmdet's model zoo") -> Published:
    return Published(ap, "COCO val2017", f"{source}, {config}")


def with_quality_focal(config: ModelConfig, head: HeadConfig, name: str | None = None) -> ModelConfig:
    """The row of the paper's table 1b: the same model with joint scores. Nothing was published of its weights."""
    return replace(config, name=name or f"{config.name}+qfl", head=head, published=None)
