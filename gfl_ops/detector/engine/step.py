"""One training step, one operation after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..data import Batch
from .options import TrainOptions

OnLosses = Callable[[dict[str, Tensor], Batch], None]
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class EagerStep:
    """Forward and backward of every part of a batch, then one update.

    Args:
        forward: the detector, or the module that distributes it.
        clip_norm: limit of the gradients' norm; None for no limit.
    """

    def __init__(
        self,
        forward: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        clip_norm: float | None,
        options: TrainOptions,
    ) -> None:
        self.forward, self.optimizer, self.scaler = forward, optimizer, scaler
        self.clip_norm, self.options, self.device = clip_norm, options, device_of(forward)

    def __call__(self, parts: list[Batch], rate: float, on_losses: OnLosses) -> Tensor:
        """Returns the gradients' norm. ``on_losses`` is called with the losses of each part."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        for i, batch in enumerate(parts):
            with _no_sync(self.forward, i < len(parts) - 1):
                with autocast(self.options, self.device):
                    losses = self.forward(batch.images, batch.targets, short_sides=batch.short_sides)
                loss = torch.stack(list(losses.values())).sum()
                self.scaler.scale(loss / len(parts)).backward()
            on_losses(losses, batch)
        self.scaler.unscale_(self.optimizer)
        norm = clip(self.forward, self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return norm


def clip(model: nn.Module, max_norm: float | None) -> Tensor:
    """Limits the norm of the gradients, and returns what it was."""
    return nn.utils.clip_grad_norm_(model.parameters(), max_norm or float("inf"))


def autocast(options: TrainOptions, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    half = _HALF.get(options.precision)
    return contextlib.nullcontext() if half is None else torch.autocast(device.type, half)


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _no_sync(model: nn.Module, active: bool) -> contextlib.AbstractContextManager[Any]:
    return model.no_sync() if active and isinstance(model, DistributedDataParallel) else contextlib.nullcontext()
