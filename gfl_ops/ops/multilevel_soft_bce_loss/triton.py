"""Binary cross entropy with soft targets over levels on Triton."""

from __future__ import annotations

import functools

from .._multilevel_class_loss import MultilevelLossOp
from .._multilevel_class_loss_triton import MULTILEVEL_CLASS_LOSS
from . import native

_LOSS = MultilevelLossOp("multilevel_soft_bce_loss", MULTILEVEL_CLASS_LOSS)

multilevel_soft_bce_loss = functools.partial(native.multilevel_soft_bce_loss, loss=_LOSS)
