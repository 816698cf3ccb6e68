"""What a run is: everything that decides its result, as plain values that its folder and checkpoints keep."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..config import ModelConfig, Recipe
from .ranks import Ranks

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class TrainOptions:
    """Of :func:`train`. What is None is taken from the model's recipe."""

    out: Path
    """The run's folder."""
    batch_size: int | None = None
    """Of all processes together, accumulated ones included; the learning rate is scaled with it."""
    learning_rate: float | None = None
    """For the batch size given; not scaled."""
    iterations: int | None = None
    epochs: int | None = None
    seed: int = 0
    workers: int = 0
    """Processes that read images, for each process that trains."""
    precision: Precision = "fp32"
    accumulate: int = 1
    """A step takes the gradients of so many batches, each a fraction of batch_size."""
    clip_norm: float | None = None
    ema: float | None = None
    photometric: bool | None = None
    crop: bool | None = None
    channels_last: bool = True
    """The memory format that convolutions are faster in, on CPUs as on GPUs."""
    sync_batchnorm: bool = False
    cuda_graph: bool = False
    """The whole step as one launch, on one GPU: for small models, whose time goes into launches."""
    evaluate_every: int | None = None
    """Iterations between evaluations; None evaluates once, at the end."""
    checkpoint_every: int = 500
    keep: int = 3
    log_every: int = 20
    resume: bool = False
    """Go on from the newest checkpoint in the folder; without one, start."""

    def recipe(self, config: ModelConfig) -> Recipe:
        """The model's, with what these options change; its learning rate is that for the batch size in use."""
        base = config.recipe
        size = base.batch_size if self.batch_size is None else self.batch_size
        rate = base.learning_rate * size / base.batch_size if self.learning_rate is None else self.learning_rate
        changes: dict[str, Any] = {"batch_size": size, "learning_rate": rate}
        if self.epochs is not None:
            scale = self.epochs / base.epochs
            milestones = tuple(round(milestone * scale) for milestone in base.milestones)
            changes |= {"epochs": self.epochs, "iterations": None, "milestones": milestones}
        if self.iterations is not None:
            changes["iterations"] = self.iterations
        for name in ("clip_norm", "ema", "photometric", "crop"):
            if getattr(self, name) is not None:
                changes[name] = getattr(self, name)
        return replace(base, **changes)

    def check(self, recipe: Recipe, ranks: Ranks) -> None:
        parts = ranks.world_size * self.accumulate
        if self.accumulate < 1 or recipe.batch_size < 1 or recipe.batch_size % parts:
            raise ValueError(
                f"train: batch_size must be a multiple of processes x accumulate = {parts}, got {recipe.batch_size}"
            )
        for name in ("iterations", "epochs", "evaluate_every", "checkpoint_every", "keep", "log_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"train: {name} must be at least 1, got {value}")
        if self.iterations is not None and self.epochs is not None:
            raise ValueError("train: iterations and epochs must not both be given")
        if self.precision not in ("fp32", "bf16", "fp16"):
            raise ValueError(f"train: precision must be fp32, bf16 or fp16, got {self.precision!r}")
        if not recipe.learning_rate > 0:
            raise ValueError(f"train: learning_rate must be positive, got {recipe.learning_rate}")

        if self.cuda_graph:
            self._check_graph(ranks)

    def _check_graph(self, ranks: Ranks) -> None:
        if ranks.device.type != "cuda":
            raise ValueError(f"train: cuda_graph must be off where there is no CUDA device, got {ranks.device.type}")
        if ranks.world_size > 1 or self.accumulate > 1:
            raise ValueError("train: cuda_graph takes one process that does not accumulate")
        if self.precision == "fp16":
            raise ValueError("train: cuda_graph takes fp32 and bf16; the loss scaling of fp16 waits for the device")

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "out": str(self.out)}
