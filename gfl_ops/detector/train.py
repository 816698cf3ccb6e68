"""A training run, from its options to its report: the command ``gfl train``.

Several processes: ``torchrun --nproc-per-node N -m gfl_ops.detector.train OPTIONS``.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from .command.options import option, read
from .command.printing import metrics_table, print_json, progress
from .command.running import TRAINING, Command, run
from .command.shared import DataOptions, DeviceOptions, InputOptions, open_data, set_threads, with_input
from .config import ModelConfig
from .data import SYNTHETIC_SIZE, CocoDetection, DetectionData, check
from .engine import Ranks, TrainOptions, connect, train
from .evaluation import Evaluation, evaluate
from .zoo import get_config

_SHOWN = 10  # broken images listed in an error


@dataclass(frozen=True, kw_only=True)
class RunOptions(DataOptions, InputOptions, DeviceOptions):
    section: ClassVar[str] = "run"
    model: str = option("a name from `gfl models`", "gfl_r18_fpn_lite")
    weights: Path | None = option("initial weights: a detector's, or an ImageNet backbone's", metavar="FILE")
    check: bool = option("do not read every image before training", True)
    out: Path | None = option("the run's folder (default: a new one in runs/)", metavar="DIR")
    report: bool = option("write no report with charts and pictures at the end", True)
    json: bool = option("print the result as JSON, and no progress bar", False)


def _train(arguments: argparse.Namespace) -> int:
    options = read(RunOptions, arguments)
    set_threads(options)
    config = configuration(options)
    with connect(options.device) as ranks:
        data, val = open_both(options, ranks)
        out = ranks.gather(_folder(options, resume=arguments.resume, restarted=ranks.restarts > 0))[0]
        out.mkdir(parents=True, exist_ok=True)
        train_options = read(TrainOptions, arguments, out=out)
        if ranks.is_main and not options.json:
            print(_heading(config, data, val, ranks, options, train_options), file=sys.stderr)
        last: list[Evaluation] = []

        def evaluate_now(model: Any) -> dict[str, float]:
            bar = progress("evaluation", quiet=options.json or not ranks.is_main)
            last[:] = [evaluate(model, val, ranks, workers=train_options.workers, progress=bar)]
            return last[0].metrics.summary

        result = train(
            config,
            data,
            train_options,
            ranks,
            weights=options.weights,
            evaluate=evaluate_now,
            quiet=options.json,
        )
        if not last:  # a resumed run that was complete: show its result again
            evaluate_now(result.model)
        if ranks.is_main:
            _show(last[0], result.model, val, out, options)
    return 0


def configuration(options: RunOptions) -> ModelConfig:
    """The model's configuration: nothing is frozen without initial weights, and synthetic scenes keep their size."""
    config = get_config(options.model)
    if options.data is None:
        short, long = SYNTHETIC_SIZE
        config = replace(config, input=replace(config.input, short_side=short, long_side=long, train_short_sides=None))
    config = with_input(config, options)
    return config if options.weights is not None else config.from_scratch()


def open_both(options: RunOptions, ranks: Ranks) -> tuple[DetectionData, DetectionData]:
    """The splits train and val. Broken files raise an error, or are left out and counted."""
    data, val = open_data(options, "train", training=True), open_data(options, "val")
    if list(data.classes) != list(val.classes):
        raise ValueError(f"the splits' classes differ: {', '.join(data.classes)} and {', '.join(val.classes)}")
    for split in (data, val):
        if isinstance(split, CocoDetection):
            _tell_skipped(split, ranks)
            if options.check:
                _check_images(split, options, ranks)
    if len(data) == 0:
        raise ValueError("there is no image with a box to train on")
    return data, val


def _tell_skipped(data: CocoDetection, ranks: Ranks) -> None:
    """Prints what was left out when the data set was opened."""
    counts = {
        "malformed entries skipped": sum(finding.fatal for finding in data.findings),
        "boxes without area dropped": sum(finding.kind == "box without use" for finding in data.findings),
        "images without boxes left out": data.left_out,
    }
    skipped = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    if skipped and ranks.is_main:
        print(f"{data.path}: {skipped}", file=sys.stderr)


def _check_images(data: CocoDetection, options: RunOptions, ranks: Ranks) -> None:
    quiet = options.json or not ranks.is_main
    report = check(data, progress=progress("looking at images", len(data), quiet=quiet, unit="img"))
    if not report.bad_images:
        return
    bad = [finding for finding in report.fatal if finding not in data.findings]
    if not options.skip_bad:
        lines = "\n  ".join(str(finding) for finding in bad[:_SHOWN])
        more = f"\n  and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise ValueError(f"{len(bad)} broken images; --skip-bad leaves them out\n  {lines}{more}")
    count = data.drop(report.bad_images)
    if ranks.is_main:
        print(f"{data.path}: {count} broken images skipped", file=sys.stderr)


def _folder(options: RunOptions, *, resume: bool, restarted: bool) -> Path:
    """The folder of the options, or a new one in runs/; to resume, the newest of this model and data."""
    if options.out is not None:
        return options.out
    source = options.data.resolve().name if options.data is not None else "synthetic"
    base = Path("runs") / f"{options.model}_{source}"
    number = 1
    while _numbered(base, number).exists():
        number += 1
    if resume and number == 1:
        raise FileNotFoundError(f"there is no run to resume: {base} does not exist")
    return _numbered(base, max(number - 1, 1) if resume or restarted else number)


def _numbered(base: Path, number: int) -> Path:
    return base if number == 1 else base.with_name(f"{base.name}_{number}")


def _heading(
    config: ModelConfig,
    data: DetectionData,
    val: DetectionData,
    ranks: Ranks,
    options: RunOptions,
    train_options: TrainOptions,
) -> str:
    recipe = train_options.recipe(config)
    source = options.data if options.data is not None else "synthetic scenes"
    length = f"{recipe.iterations} iterations" if recipe.iterations is not None else f"{recipe.epochs} epochs"
    return (
        f"{config.name} on {source}: {len(data)} images to train on, {len(val)} to evaluate on, "
        f"{len(data.classes)} classes\n"
        f"{length} of {recipe.batch_size} images, {recipe.optimizer} with learning rate {recipe.learning_rate:g}, "
        f"on {ranks.world_size} x {ranks.device.type}; everything goes to {train_options.out}"
    )


def _show(result: Evaluation, model: Any, val: DetectionData, out: Path, options: RunOptions) -> None:
    written = result.write(out)
    if options.report:
        from .report import write_report

        written["report"] = str(write_report(out, result, model, val))
        written["picture"] = str(out / "report" / "predictions.png")
    if options.json:
        print_json({"run": str(out), **result.as_json(), "files": written})
        return
    print(metrics_table(result.metrics.summary, result.metrics.per_class))
    for name, path in written.items():
        print(f"{name}: {path}")


COMMAND = Command(
    "train",
    "train a detector; without options, the lite model on synthetic scenes",
    (RunOptions, TrainOptions),
    _train,
    TRAINING,
)

if __name__ == "__main__":
    sys.exit(run((COMMAND,), ["train", *sys.argv[1:]]))
