"""Sigmoid focal loss over levels on Triton."""

from __future__ import annotations

import functools

from .._multilevel_class_loss_triton import multilevel_class_loss
from . import native

multilevel_sigmoid_focal_loss = functools.partial(native.multilevel_sigmoid_focal_loss, fused=multilevel_class_loss)
