"""Varifocal loss over levels on Triton."""

from __future__ import annotations

import functools

from .._multilevel_class_loss import MultilevelLossOp
from .._multilevel_class_loss_triton import MULTILEVEL_CLASS_LOSS
from . import native

_LOSS = MultilevelLossOp("multilevel_varifocal_loss", MULTILEVEL_CLASS_LOSS)

multilevel_varifocal_loss = functools.partial(native.multilevel_varifocal_loss, loss=_LOSS)
