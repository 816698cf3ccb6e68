"""``gfl bench``: the paper's ablation, and the speed of training and inference."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from ..detector import Detector, ModelConfig, atss_head, build
from ..detector.command.options import option, positional, read
from ..detector.command.printing import figure, print_json, table
from ..detector.command.running import TRAINING, Command
from ..detector.command.shared import set_threads
from ..detector.engine import TrainOptions, connect, train
from ..detector.engine.checkpoints import write_json
from ..detector.evaluation import evaluate
from ..detector.heads import Distribution, Joint
from ..detector.train import RunOptions, configuration, open_both

_KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


@dataclass(frozen=True, kw_only=True)
class BenchOptions(RunOptions):
    section: ClassVar[str] = "benchmark"
    what: Literal["ablation", "speed"] = positional("train with QFL and DFL on and off; or measure images per second")
    only: tuple[str, ...] | None = option("only these rows of the ablation: atss, qfl, dfl, gfl")
    repeat: int = option("how often to measure the speed; the fastest counts", 5, at_least=1)


def _bench(arguments: argparse.Namespace) -> int:
    options = read(BenchOptions, arguments)
    set_threads(options)
    out = options.out if options.out is not None else Path("runs") / "ablation"
    train_options = read(TrainOptions, arguments, out=out)
    return _speed(options, train_options) if options.what == "speed" else _ablation(options, train_options)


def ablation_configs(config: ModelConfig) -> dict[str, tuple[bool, bool, ModelConfig]]:
    """The four rows of the table: quality focal loss on or off, distribution focal loss on or off, and the model."""
    boxes = config.head.boxes if isinstance(config.head.boxes, Distribution) else Distribution()
    atss = atss_head(towers=config.head.towers, strides=config.head.strides)
    heads = {
        "atss": (False, False, atss),
        "qfl": (True, False, replace(atss, quality=Joint())),
        "dfl": (False, True, replace(atss, boxes=boxes)),
        "gfl": (True, True, replace(atss, quality=Joint(), boxes=boxes)),
    }
    return {
        name: (qfl, dfl, replace(config, name=f"{config.name}+{name}", head=head))
        for name, (qfl, dfl, head) in heads.items()
    }


def _ablation(options: BenchOptions, train_options: TrainOptions) -> int:
    configs = ablation_configs(configuration(options))
    chosen = options.only or tuple(configs)
    for name in chosen:
        if name not in configs:
            raise ValueError(f"--only takes {', '.join(configs)}, got {name!r}")
    rows: dict[str, dict[str, Any]] = {}
    with connect(options.device) as ranks:
        data, val = open_both(options, ranks)
        for name in chosen:
            qfl, dfl, config = configs[name]
            if ranks.is_main:
                print(f"{name}: {config.name}", file=sys.stderr)
            out = train_options.out / name
            out.mkdir(parents=True, exist_ok=True)

            def figures(model: Detector) -> dict[str, float]:
                return evaluate(model, val, ranks, workers=train_options.workers).metrics.summary

            run_options = replace(train_options, out=out)
            result = train(config, data, run_options, ranks, evaluate=figures, quiet=options.json)
            metrics = result.metrics or figures(result.model)
            rows[name] = {"qfl": qfl, "dfl": dfl, **{key: metrics[key] for key in _KEYS}}
        if ranks.is_main:
            write_json(train_options.out / "ablation.json", rows)
            if options.json:
                print_json(rows)
            else:
                print(_ablation_table(rows))
    return 0


def _ablation_table(rows: dict[str, dict[str, Any]]) -> str:
    def mark(on: bool) -> str:
        return "yes" if on else "-"

    lines = [
        [name, mark(row["qfl"]), mark(row["dfl"]), *(figure(row[key]) for key in _KEYS)] for name, row in rows.items()
    ]
    return table(["head", "QFL", "DFL", *_KEYS], lines)


def _speed(options: BenchOptions, train_options: TrainOptions) -> int:
    """Measures a training step and inference on random images of the configuration's size."""
    config = configuration(options)
    size = config.input.short_side, min(round(config.input.short_side * 4 / 3), config.input.long_side)
    batch = train_options.batch_size or min(config.recipe.batch_size, 4)
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(train_options.precision)
    with connect(options.device) as ranks:
        device = ranks.device
        model = build(config, 80).to(device)
        images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, device=device) for _ in range(batch)]
        boxes = torch.tensor([[0.1, 0.1, 0.5, 0.6], [0.3, 0.4, 0.9, 0.8], [0.6, 0.1, 0.7, 0.3]])
        boxes = boxes * torch.tensor([size[1], size[0]]).repeat(2)
        target = {"boxes": boxes.to(device), "labels": torch.tensor([1, 2, 3], device=device)}

        def step() -> None:
            model.train()
            model.zero_grad(set_to_none=True)
            with torch.autocast(device.type, half, enabled=half is not None):
                losses = model(images, [target] * batch)
            torch.stack(list(losses.values())).sum().backward()

        def infer() -> None:
            with torch.autocast(device.type, half, enabled=half is not None):
                model.eval()(images)

        result = {
            "model": config.name,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
            "precision": train_options.precision,
            "batch": batch,
            "height": size[0],
            "width": size[1],
            "train_images_per_s": batch / _best(step, options.repeat, device),
            "infer_images_per_s": batch / _best(infer, options.repeat, device),
        }
    if options.json:
        print_json(result)
    else:
        print(
            "\n".join(
                f"{name}: {value:.2f}" if isinstance(value, float) else f"{name}: {value}"
                for name, value in result.items()
            )
        )
    return 0


def _best(function: Callable[[], None], repeat: int, device: torch.device) -> float:
    """Seconds of the fastest call, without the first, which allocates memory."""
    times = []
    for _ in range(repeat + 1):
        _finish(device)
        start = time.perf_counter()
        function()
        _finish(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


COMMAND = Command(
    "bench",
    "compare losses with the same training budget, or measure speed",
    (BenchOptions, TrainOptions),
    _bench,
    TRAINING,
)
