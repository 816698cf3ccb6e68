"""``gfl train``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..detector import InputConfig, ModelConfig, get_config
from ..detector.data import SYNTHETIC_SIZE, CocoDetection, DetectionData, check
from ..detector.engine import Ranks, TrainOptions, connect, train
from ..detector.evaluation import Evaluation, evaluate
from . import common

_SHOWN = 10  # of the faults that stop a run


def add(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "train", help="train a detector; without options, the lite model on synthetic scenes"
    )
    add_arguments(parser)
    return parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run, command="train")
    parser.add_argument("--model", default=common.DEFAULT_MODEL, help="a name from `gfl models` (%(default)s)")
    parser.add_argument("--weights", metavar="FILE", help="start from these: a detector, or an ImageNet backbone")
    common.add_data(parser)
    parser.add_argument("--no-check", action="store_true", help="do not look at every image before the start")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run's folder (default: a new one in runs/)")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in the folder")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--iterations", type=common.positive, metavar="N")
    length.add_argument("--epochs", type=common.positive, metavar="N")
    parser.add_argument("--batch-size", type=common.positive, metavar="N", help="of all processes together")
    parser.add_argument("--lr", type=float, help="for that batch size (default: the recipe's, scaled with it)")
    parser.add_argument(
        "--accumulate", type=common.positive, default=1, metavar="N", help="batches to a step, in parts"
    )
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--clip-norm", type=float, metavar="X", help="cut the gradients' norm")
    parser.add_argument("--ema", type=float, metavar="DECAY", help="evaluate a moving average of the weights")
    parser.add_argument("--photometric", action="store_true", default=None, help="change colours at random")
    parser.add_argument("--crop", action="store_true", default=None, help="crop at random")
    parser.add_argument("--no-channels-last", action="store_true", help="the other memory format")
    parser.add_argument("--sync-bn", action="store_true", help="batch statistics over all processes (GPUs)")
    parser.add_argument("--cuda-graph", action="store_true", help="the whole step as one launch (one GPU, small model)")
    common.add_input(parser)
    parser.add_argument("--seed", type=common.natural, default=0)
    common.add_device(parser)
    parser.add_argument("--eval-every", type=common.positive, metavar="N", help="iterations (default: at the end)")
    parser.add_argument("--checkpoint-every", type=common.positive, default=500, metavar="N", help="(%(default)s)")
    parser.add_argument("--keep", type=common.positive, default=3, metavar="N", help="checkpoints (%(default)s)")
    parser.add_argument("--log-every", type=common.positive, default=20, metavar="N", help="(%(default)s)")
    parser.add_argument("--no-report", action="store_true", help="no pictures at the end")
    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout, no progress bar")


def run(options: argparse.Namespace) -> int:
    common.set_threads(options)
    config = configuration(options)
    with connect(options.device) as ranks:
        data, val = open_both(options, ranks)
        out = ranks.gather(_folder(options, ranks.restarts > 0))[0]
        out.mkdir(parents=True, exist_ok=True)
        if ranks.is_main and not options.json:
            print(_heading(config, data, val, out, ranks, options), file=sys.stderr)
        last: list[Evaluation] = []

        def evaluate_now(model: Any) -> dict[str, float]:
            quiet = options.json or not ranks.is_main
            bar = common.progress("evaluation", quiet=quiet)
            last[:] = [evaluate(model, val, ranks, workers=options.workers, progress=bar)]
            return last[0].metrics.summary

        result = train(
            config,
            data,
            run_options(options, out),
            ranks,
            weights=options.weights,
            evaluate=evaluate_now,
            quiet=options.json,
        )
        if not last:  # a run that had ended already is shown again
            evaluate_now(result.model)
        if ranks.is_main:
            _show(last[0], result.model, val, out, options)
    return 0


def configuration(options: argparse.Namespace) -> ModelConfig:
    """The model's, with nothing frozen where it starts from random weights. Synthetic scenes keep their size."""
    config = get_config(options.model)
    if options.data is None:
        config = replace(config, input=InputConfig(*SYNTHETIC_SIZE))
    config = common.with_input(config, options)
    return config if options.weights is not None or config.backbone.frozen_stages < 0 else config.from_scratch()


def run_options(options: argparse.Namespace, out: Path) -> TrainOptions:
    return TrainOptions(
        out,
        batch_size=options.batch_size,
        learning_rate=options.lr,
        iterations=options.iterations,
        epochs=options.epochs,
        seed=options.seed,
        workers=options.workers,
        precision=options.precision,
        accumulate=options.accumulate,
        clip_norm=options.clip_norm,
        ema=options.ema,
        photometric=options.photometric,
        crop=options.crop,
        channels_last=not options.no_channels_last,
        sync_batchnorm=options.sync_bn,
        cuda_graph=options.cuda_graph,
        evaluate_every=options.eval_every,
        checkpoint_every=options.checkpoint_every,
        keep=options.keep,
        log_every=options.log_every,
        resume=options.resume,
    )


def open_both(options: argparse.Namespace, ranks: Ranks) -> tuple[DetectionData, DetectionData]:
    """Both splits; broken files stop the run before it begins, or are left out and counted."""
    data, val = common.open_data(options, "train", training=True), common.open_data(options, "val")
    if list(data.classes) != list(val.classes):
        raise ValueError(f"the splits' classes differ: {', '.join(data.classes)} and {', '.join(val.classes)}")
    for split in (data, val):
        said = common.skipped_text(split)
        if said is not None and ranks.is_main:
            print(said, file=sys.stderr)
        if isinstance(split, CocoDetection) and not options.no_check:
            _check(split, options, ranks)
    if len(data) == 0:
        raise ValueError("there is no image with a box to train on")
    return data, val


def _check(data: CocoDetection, options: argparse.Namespace, ranks: Ranks) -> None:
    quiet = options.json or not ranks.is_main
    report = check(data, progress=common.progress("looking at images", len(data), quiet=quiet, unit="img"))
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


def _folder(options: argparse.Namespace, restarted: bool) -> Path:
    """The one asked for, or the first free one in runs/; the last that is not free for a run to be resumed."""
    if options.out is not None:
        return Path(options.out)
    source = options.data.resolve().name if options.data is not None else "synthetic"
    base = Path("runs") / f"{options.model}_{source}"
    number = 1
    while _numbered(base, number).exists():
        number += 1
    if options.resume and number == 1:
        raise FileNotFoundError(f"there is no run to resume: {base} does not exist")
    return _numbered(base, max(number - 1, 1) if options.resume or restarted else number)


def _numbered(base: Path, number: int) -> Path:
    return base if number == 1 else base.with_name(f"{base.name}_{number}")


def _heading(
    config: ModelConfig, data: DetectionData, val: DetectionData, out: Path, ranks: Ranks, options: argparse.Namespace
) -> str:
    recipe = run_options(options, out).recipe(config)
    source = options.data if options.data is not None else "synthetic scenes"
    length = f"{recipe.iterations} iterations" if recipe.iterations is not None else f"{recipe.epochs} epochs"
    return (
        f"{config.name} on {source}: {len(data)} images to train on, {len(val)} to evaluate on, "
        f"{len(data.classes)} classes\n"
        f"{length} of {recipe.batch_size} images, {recipe.optimizer} with learning rate {recipe.learning_rate:g}, "
        f"on {ranks.world_size} x {ranks.device.type}; everything goes to {out}"
    )


def _show(result: Evaluation, model: Any, val: DetectionData, out: Path, options: argparse.Namespace) -> None:
    from .evaluate import write_results

    written = write_results(result, out)
    if not options.no_report:
        from ..detector.report import write_report

        written["report"] = str(write_report(out, result, model, val))
        written["picture"] = str(out / "report" / "predictions.png")
    if options.json:
        common.print_json({"run": str(out), **result.as_json(), "files": written})
        return
    print(common.metrics_table(result.metrics.summary, result.metrics.per_class))
    for name, path in written.items():
        print(f"{name}: {path}")


def main() -> int:
    """Of ``python -m gfl_ops.detector.train``, which torchrun starts."""
    from .main import main as command_line

    return command_line(["train", *sys.argv[1:]])
