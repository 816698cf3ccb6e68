"""The class loss of a dense head on Triton."""

from __future__ import annotations

import functools

from .._multilevel_class_loss import MultilevelLossOp
from .._multilevel_class_loss_triton import MULTILEVEL_CLASS_LOSS
from . import native

_LOSS = MultilevelLossOp("class_loss_maps", MULTILEVEL_CLASS_LOSS)

class_loss_maps = functools.partial(native.class_loss_maps, loss=_LOSS)
