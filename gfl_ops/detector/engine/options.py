"""The options of a training run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..command.options import check_minimums, option
from ..config import ModelConfig
from ..settings import Recipe
from .ranks import Ranks

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class TrainOptions:
    """Options of :func:`train`. Those that are None are taken from the model's recipe."""

    section: ClassVar[str] = "training"
    out: Path
    """The run's folder."""
    iterations: int | None = option("how long to train", at_least=1, one_of="length")
    epochs: int | None = option("how long to train (default: the recipe's length)", at_least=1, one_of="length")
    batch_size: int | None = option("images in a step, over all processes (default: the recipe's)", at_least=1)
    learning_rate: float | None = option(
        "for the batch size in use (default: the recipe's, scaled with the batch size)", also="--lr"
    )
    accumulate: int = option("compute a step's gradients in N parts, which needs less memory", 1, at_least=1)
    precision: Precision = option("bf16 and fp16: mixed precision", "fp32")
    clip_norm: float | None = option("limit the norm of the gradients (default: the recipe's limit)")
    ema: float | None = option("evaluate an exponential moving average of the weights", metavar="DECAY")
    photometric: bool | None = option("change brightness, contrast and saturation at random")
    crop: bool | None = option("crop images at random")
    channels_last: bool = option("use contiguous tensors; convolutions are faster on channels-last ones", True)
    sync_batchnorm: bool = option("compute batch statistics over all processes (GPUs)", False, also="--sync-bn")
    cuda_graph: bool = option("run each step as one CUDA graph: one GPU, faster for small models", False)
    seed: int = option("of the weights, the order of the images and the augmentation", 0)
    workers: int = option("processes that read images, for each process that trains", 0)
    evaluate_every: int | None = option(
        "iterations between evaluations (default: one evaluation, at the end)", at_least=1, also="--eval-every"
    )
    checkpoint_every: int = option("iterations between checkpoints", 500, at_least=1)
    keep: int = option("how many checkpoints to keep", 3, at_least=1)
    log_every: int = option("iterations between lines of the log", 20, at_least=1)
    resume: bool = option("continue from the newest checkpoint in the folder, if there is one", False)

    def recipe(self, config: ModelConfig) -> Recipe:
        """The model's recipe with the changes of these options, and the learning rate for the batch size in use."""
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
        check_minimums("train", self)
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
