"""Quality focal loss on Triton."""

from __future__ import annotations

import functools

from ..._op import LossOp
from .._class_loss_triton import CLASS_LOSS
from . import native

quality_focal_loss = functools.partial(native.quality_focal_loss, loss=LossOp("quality_focal_loss", CLASS_LOSS))
