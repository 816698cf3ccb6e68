"""Binary cross entropy with soft targets on Triton."""

from __future__ import annotations

import functools

from ..._op import LossOp
from .._class_loss_triton import CLASS_LOSS
from . import native

soft_bce_loss = functools.partial(native.soft_bce_loss, loss=LossOp("soft_bce_loss", CLASS_LOSS))
