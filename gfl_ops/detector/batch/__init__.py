"""From images and targets of any size to one batch on the device."""

from .preprocess import Batch, input_size, make_batch
from .targets import Target, check_targets, scale_targets

__all__ = ["Batch", "Target", "check_targets", "input_size", "make_batch", "scale_targets"]
