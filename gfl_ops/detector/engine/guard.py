"""Stops a run whose loss is not finite, and saves the batch that caused it."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import write_atomically
from ..data import Batch


class NotFinite(RuntimeError):
    """The loss became NaN or infinite. The message names the file with the batch."""


class FiniteGuard:
    """Checks each iteration's losses: at once on a CPU, one iteration later on a GPU, so as not to wait."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder, self.rank = folder, rank
        self.pending: tuple[int, dict[str, Tensor], Batch] | None = None

    def watch(self, iteration: int, losses: dict[str, Tensor], batch: Batch) -> None:
        self.flush()
        self.pending = (iteration, {name: loss.detach() for name, loss in losses.items()}, batch)
        if all(loss.device.type == "cpu" for loss in losses.values()):
            self.flush()

    def flush(self) -> None:
        """Checks now. The loop does so before a checkpoint, so that none has weights that are not finite."""
        if self.pending is None:
            return
        (iteration, losses, batch), self.pending = self.pending, None
        values = {name: float(loss) for name, loss in losses.items()}
        if all(torch.tensor(value).isfinite() for value in values.values()):
            return
        path = self.folder / f"not_finite_{iteration:07d}_rank{self.rank}.pth"
        buffer = io.BytesIO()
        torch.save({"iteration": iteration, "losses": values, **batch._asdict()}, buffer)
        write_atomically(path, lambda file: file.write(buffer.getvalue()))
        shown = ", ".join(f"{name} {value:g}" for name, value in values.items())
        raise NotFinite(
            f"iteration {iteration}: {shown}; the batch (images {batch.image_ids}) is in {path}. "
            "A lower learning rate, a longer warmup or gradient clipping may help"
        )
