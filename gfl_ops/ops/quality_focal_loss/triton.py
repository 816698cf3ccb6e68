"""Quality focal loss on Triton."""

from __future__ import annotations

import functools

from .._class_loss_triton import class_loss
from . import native

quality_focal_loss = functools.partial(native.quality_focal_loss, fused=class_loss("quality_focal_loss"))
