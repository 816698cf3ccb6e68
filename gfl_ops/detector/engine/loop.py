"""The training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..config import ModelConfig
from ..data import Augment, Batch, DetectionData, EpochBatches, training_loader
from ..model import Detector
from ..settings import InputConfig, Recipe
from .checkpoints import Checkpoints, write_json
from .graphed import GraphedStep
from .guard import FiniteGuard
from .logs import RunLog
from .optim import Average, build_optimizer
from .options import TrainOptions
from .ranks import Ranks
from .schedule import learning_rate_factor, total_iterations
from .step import EagerStep

Evaluate = Callable[[Detector], dict[str, float]]


@dataclass
class TrainResult:
    model: Detector
    """The model to use: the moving average if the recipe has one."""
    iteration: int
    metrics: dict[str, float]
    """Of the last evaluation."""
    best: float


def train(
    config: ModelConfig,
    data: DetectionData,
    options: TrainOptions,
    ranks: Ranks,
    *,
    weights: str | Path | None = None,
    evaluate: Evaluate | None = None,
    quiet: bool = False,
) -> TrainResult:
    """Trains a detector, or resumes its training.

    Args:
        config: the model and its recipe.
        data: to train on; the same on every rank.
        options: changes of the recipe, and the run's folder.
        ranks: from :func:`connect`.
        weights: a file to start from, as :func:`gfl_ops.detector.build` takes it.
        evaluate: called on every rank with the model in evaluation mode. The highest "AP" of its results decides which
            weights are the best.
        quiet: no progress bar.
    """
    recipe = options.recipe(config)
    options.check(recipe, ranks)
    config = replace(config, recipe=recipe)
    torch.manual_seed(options.seed)
    model = Detector(config, len(data.classes))
    if weights is not None:
        model.load_checkpoint(weights)
    run = _Run(model, config, data, options, ranks, quiet)
    run.fit(evaluate)
    return TrainResult(run.evaluated, run.iteration, run.metrics, run.best)


class _Run:
    """The parts of a run, and the state that its checkpoints hold."""

    def __init__(
        self,
        model: Detector,
        config: ModelConfig,
        data: DetectionData,
        options: TrainOptions,
        ranks: Ranks,
        quiet: bool,
    ) -> None:
        self.config, self.recipe, self.options, self.ranks = config, config.recipe, options, ranks
        self.data, self.quiet = data, quiet
        self.model = _on_device(model, options, ranks)
        self.average = Average(self.model, self.recipe.ema) if self.recipe.ema is not None else None
        self.optimizer = build_optimizer(self.model, self.recipe, self.recipe.learning_rate)
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=options.precision == "fp16")
        self.checkpoints = Checkpoints(options.out, options.keep)
        self.iteration, self.best, self.metrics = 0, float("-inf"), dict[str, float]()

        per_batch = self.recipe.batch_size // (ranks.world_size * options.accumulate)
        self.batches = EpochBatches(
            data.sizes(), per_batch, seed=options.seed, rank=ranks.rank, world_size=ranks.world_size
        )
        once = max(self.batches.iterations_per_epoch // options.accumulate, 1)
        self.iterations_per_epoch = once * self.recipe.repeat
        self.total = total_iterations(self.recipe, self.iterations_per_epoch)

    @property
    def evaluated(self) -> Detector:
        return self.average.model if self.average is not None else self.model

    def fit(self, evaluate: Evaluate | None) -> None:
        self._begin()
        options = self.options
        step = self._step()
        guard = FiniteGuard(options.out, self.ranks.rank)
        batches = self._loader()
        log = RunLog(options.out, self.total, self.iteration, quiet=self.quiet or not self.ranks.is_main)
        sums = _LossMeans()

        def on_losses(losses: dict[str, Tensor], batch: Batch) -> None:
            guard.watch(self.iteration, losses, batch)
            sums.add(losses)

        while self.iteration < self.total:
            factor = learning_rate_factor(self.recipe, self.iteration, self.iterations_per_epoch)
            rate = self.recipe.learning_rate * factor
            self.model.train()
            parts = [next(batches) for _ in range(options.accumulate)]
            norm = step(parts, rate, on_losses)
            if self.average is not None:
                self.average.update(self.model, self.iteration)

            self.iteration += 1
            log.step(sum(len(batch.images) for batch in parts) * self.ranks.world_size)
            done = self.iteration == self.total
            if self.ranks.is_main and (done or self.iteration % options.log_every == 0):
                log.train(self.iteration, {"lr": rate, **sums.take(), "grad_norm": float(norm)})
            if evaluate is not None and (done or self.iteration % (options.evaluate_every or self.total) == 0):
                guard.flush()
                self._evaluate(evaluate, log)
            if done or self.iteration % options.checkpoint_every == 0:
                guard.flush()
                self._save()
        log.close()

    def _begin(self) -> None:
        """Prepares the run's folder, and loads the newest checkpoint to resume or after a restart by torchrun."""
        if self.ranks.is_main:
            self.checkpoints.prepare()
        self.ranks.barrier()
        resume = self.options.resume or self.ranks.restarts > 0
        if not resume and self.checkpoints.paths():
            raise FileExistsError(
                f"{self.options.out}: holds another run's checkpoints; resume it, or choose another folder"
            )
        state = self.checkpoints.load() if resume else None
        if state is not None:
            self._restore(state)
        if self.ranks.is_main:
            about = {"model": self.config.name, "classes": list(self.data.classes), "recipe": asdict(self.recipe)}
            write_json(self.options.out / "run.json", {**about, "options": self.options.as_json()})

    def _step(self) -> EagerStep | GraphedStep:
        clip_norm = self.recipe.clip_norm
        if self.options.cuda_graph:
            return GraphedStep(self.model, self.optimizer, clip_norm, self.options)
        return EagerStep(_distributed(self.model, self.ranks), self.optimizer, self.scaler, clip_norm, self.options)

    def _loader(self) -> Iterator[Batch]:
        self.batches.start = self.iteration * self.options.accumulate
        augment = _augmentation(self.recipe, self.config.input)
        pin = self.ranks.device.type == "cuda"
        loader = training_loader(self.data, self.batches, augment, workers=self.options.workers, pin_memory=pin)
        return iter(loader)

    def _evaluate(self, evaluate: Evaluate, log: RunLog) -> None:
        self.metrics = evaluate(self.evaluated.eval())
        if not self.ranks.is_main:
            return
        log.evaluation(self.iteration, self.metrics)
        if self.metrics["AP"] > self.best:
            self.best = self.metrics["AP"]
            self.checkpoints.save_weights("best", self.evaluated, self._meta())

    def _save(self) -> None:
        states = self.ranks.gather(_random_state(self.ranks.device))
        if self.ranks.is_main:
            self.checkpoints.save(
                {
                    "iteration": self.iteration,
                    "best": self.best,
                    "metrics": self.metrics,
                    "model": self.model.state_dict(),
                    "average": self.average.model.state_dict() if self.average is not None else None,
                    "optimizer": self.optimizer.state_dict(),
                    "scaler": self.scaler.state_dict(),
                    "random": states,
                    "fingerprint": self._fingerprint(),
                    "meta": self._meta(),
                }
            )
            self.checkpoints.save_weights("last", self.evaluated, self._meta())
        self.ranks.barrier()

    def _restore(self, state: dict[str, Any]) -> None:
        current, saved = self._fingerprint(), state["fingerprint"]
        changed = [
            f"{name} {saved.get(name)} -> {current[name]}" for name in current if current[name] != saved.get(name)
        ]
        if changed:
            raise ValueError(f"{self.options.out}: cannot go on with other settings: {', '.join(changed)}")
        self.iteration, self.best, self.metrics = state["iteration"], state["best"], state["metrics"]
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.model.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        _set_random_state(state["random"][self.ranks.rank % len(state["random"])], self.ranks.device)

    def _fingerprint(self) -> dict[str, Any]:
        """The settings that may not differ when a run is resumed."""
        return {
            "model": self.config.name,
            "classes": list(self.data.classes),
            "images": len(self.data),
            "total": self.total,
            "batch_size": self.recipe.batch_size,
            "accumulate": self.options.accumulate,
            "optimizer": self.recipe.optimizer,
            "learning_rate": self.recipe.learning_rate,
            "ema": self.recipe.ema,
            "seed": self.options.seed,
        }

    def _meta(self) -> dict[str, Any]:
        return {
            "model": self.config.name,
            "classes": list(self.data.classes),
            "input": asdict(self.config.input),
            "iteration": self.iteration,
            "metrics": self.metrics,
        }


class _LossMeans:
    """Adds the losses up on their device. Their means are read, which waits for the device, only to be logged."""

    def __init__(self) -> None:
        self.totals: dict[str, Tensor] = {}
        self.count = 0

    def add(self, losses: dict[str, Tensor]) -> None:
        for name, loss in losses.items():
            self.totals[name] = self.totals.get(name, torch.zeros_like(loss.detach())) + loss.detach()
        self.count += 1

    def take(self) -> dict[str, float]:
        means = {name: float(total) / self.count for name, total in self.totals.items()}
        self.totals, self.count = {}, 0
        return {"loss": sum(means.values()), **means}


def _augmentation(recipe: Recipe, size: InputConfig) -> Augment:
    return Augment(
        recipe.flip,
        size.train_short_sides,
        size.train_short_side_choices,
        recipe.photometric,
        recipe.crop,
        (size.mean if size.channels == "rgb" else size.mean[::-1]) if recipe.expand else None,
        recipe.overlap_crop,
        recipe.distort,
    )


def _on_device(model: Detector, options: TrainOptions, ranks: Ranks) -> Detector:
    if options.sync_batchnorm and ranks.world_size > 1:
        if ranks.device.type != "cuda":
            raise ValueError("train: sync_batchnorm must be off on a CPU, where torch has none")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if options.channels_last:
        for parameter in model.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model.to(ranks.device)


def _distributed(model: Detector, ranks: Ranks) -> nn.Module:
    if ranks.world_size == 1:
        return model
    return DistributedDataParallel(model, device_ids=[ranks.device] if ranks.device.type == "cuda" else None)


def _random_state(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state


def _set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
