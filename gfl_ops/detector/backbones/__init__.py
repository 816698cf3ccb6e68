"""Backbones: from pixels to feature maps."""

from .base import Backbone
from .resnet import ResNetConfig
from .vgg import VGGConfig

BackboneConfig = ResNetConfig | VGGConfig

__all__ = ["Backbone", "BackboneConfig", "ResNetConfig", "VGGConfig"]
