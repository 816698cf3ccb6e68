"""The configuration of a detector: that of its parts. Each model of the zoo is one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .backbones import BackboneConfig
from .heads import HeadConfig
from .necks import FPNConfig, NeckConfig
from .settings import InputConfig, PostprocessConfig, Published, Recipe


@dataclass(frozen=True)
class ModelConfig:
    name: str
    backbone: BackboneConfig
    head: HeadConfig
    neck: NeckConfig = field(default_factory=FPNConfig)
    input: InputConfig = field(default_factory=InputConfig)
    postprocess: PostprocessConfig = field(default_factory=PostprocessConfig)
    recipe: Recipe = field(default_factory=Recipe)
    published: Published | None = None

    def from_scratch(self) -> ModelConfig:
        """The same model with nothing frozen, for training without pretrained backbone weights."""
        return replace(self, backbone=self.backbone.from_scratch())
