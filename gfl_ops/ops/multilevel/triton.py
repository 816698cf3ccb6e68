"""Sigmoid focal loss over levels on Triton."""

from __future__ import annotations

import functools

from .._dense_loss_triton import dense_loss
from . import native

multilevel_sigmoid_focal_loss = functools.partial(native.multilevel_sigmoid_focal_loss, fused=dense_loss)
