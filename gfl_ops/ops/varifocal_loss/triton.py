"""Varifocal loss on Triton."""

from __future__ import annotations

import functools

from ..._op import LossOp
from .._class_loss_triton import CLASS_LOSS
from . import native

varifocal_loss = functools.partial(native.varifocal_loss, loss=LossOp("varifocal_loss", CLASS_LOSS))
