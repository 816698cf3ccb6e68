"""Necks: from a backbone's feature maps to the levels that the head looks at."""

from .fpn import FPNConfig
from .ssd_extra import SSDExtraConfig

NeckConfig = FPNConfig | SSDExtraConfig

__all__ = ["FPNConfig", "NeckConfig", "SSDExtraConfig"]
