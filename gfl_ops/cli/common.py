"""What the commands share: data, models, devices, tables."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..detector import Detector, InputConfig, ModelConfig, build, get_config
from ..detector.checkpoint import read_meta
from ..detector.data import CocoDetection, DetectionData, SyntheticScenes, open_split

DEFAULT_MODEL = "gfl_r18_fpn_lite"
SYNTHETIC_LENGTHS = {"train": 4000, "val": 200, "test": 200}
Progress = Callable[[Iterable[Any]], Iterable[Any]]


def add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder in COCO's format (default: synthetic scenes)")
    parser.add_argument("--classes", metavar="A,B", help="take these classes alone, in this order")
    parser.add_argument("--skip-bad", action="store_true", help="leave out broken images and annotations, and count")


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU where there is one)")
    parser.add_argument("--threads", type=positive, metavar="N", help="of each process, on the CPU")
    parser.add_argument("--workers", type=natural, default=0, metavar="N", help="processes that read images")


def add_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--short-side", type=positive, metavar="PX", help="images are resized to it")
    parser.add_argument("--long-side", type=positive, metavar="PX", help="but to no more than this")


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return int(text)


def natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, got {text!r}")
    return int(text)


def set_threads(options: argparse.Namespace) -> None:
    if options.threads is not None:
        torch.set_num_threads(options.threads)


def open_data(options: argparse.Namespace, split: str, *, training: bool = False) -> DetectionData:
    """A split of the folder, or of the synthetic set."""
    classes = options.classes.split(",") if options.classes else None
    if options.data is not None:
        return open_split(options.data, split, classes=classes, training=training, skip_bad=options.skip_bad)
    if classes is not None:
        raise ValueError("--classes needs --data: the synthetic set has its classes")
    return SyntheticScenes(split, SYNTHETIC_LENGTHS[split])  # type: ignore[arg-type]


def skipped_text(data: DetectionData) -> str | None:
    """What an opened set left out."""
    if not isinstance(data, CocoDetection):
        return None
    fatal = sum(finding.fatal for finding in data.findings)
    dropped = sum(finding.kind == "box without use" for finding in data.findings)
    parts = [(fatal, "malformed entries skipped"), (dropped, "boxes without area dropped")]
    parts.append((data.left_out, "images without boxes left out"))
    said = [f"{count} {what}" for count, what in parts if count]
    return f"{data.path}: {', '.join(said)}" if said else None


def with_input(config: ModelConfig, options: argparse.Namespace) -> ModelConfig:
    """The configuration with the sizes asked for."""
    size = config.input
    if options.short_side is not None:
        longest = max(size.long_side, options.short_side)
        size = replace(size, short_side=options.short_side, long_side=longest, train_short_sides=None)
    if options.long_side is not None:
        size = replace(size, long_side=options.long_side)
    return replace(config, input=size)


def load_model(options: argparse.Namespace) -> tuple[Detector, list[str]]:
    """The model of a file of weights, and its classes; both as the file says, unless the options do."""
    path = options.weights if options.weights is not None else _newest_weights()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    meta = read_meta(path)
    name = options.model or meta.get("model")
    if name is None:
        raise ValueError(f"{path}: does not say which model it is of; --model does")
    classes = meta.get("classes") or (meta.get("dataset_meta") or {}).get("classes") or meta.get("CLASSES")
    classes = [f"class {i}" for i in range(80)] if classes is None else [str(x) for x in classes]
    config = get_config(str(name))
    if isinstance(meta.get("input"), dict):  # of a run, which may have been told another size
        size = meta["input"]
        config = replace(config, input=InputConfig(size["short_side"], size["long_side"], divisor=size["divisor"]))
    return build(with_input(config, options), len(classes), weights=path), classes


def _newest_weights() -> Path:
    found = sorted(Path("runs").glob("*/checkpoints/best.safetensors"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError("no weights: --weights names a file; runs/ has none of a run of `gfl train`")
    print(f"weights: {found[-1]}", file=sys.stderr)
    return found[-1]


def progress(text: str, total: int | None = None, *, quiet: bool = False, unit: str = "it") -> Progress:
    """A bar on stderr around an iterable."""

    def wrap(items: Iterable[Any]) -> Iterable[Any]:
        hidden = quiet or not sys.stderr.isatty()
        return tqdm(items, desc=text, total=total, disable=hidden, unit=unit, dynamic_ncols=True, leave=False)

    return wrap


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns, the first to the left and the others to the right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    made = []
    for line in lines:
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        made.append("  ".join(cells).rstrip())
    made.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(made)


def figure(value: float | int | None, digits: int = 3) -> str:
    """-1 is how the evaluator says that there is nothing to measure."""
    if value is None or value == -1:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.{digits}f}"


def metrics_table(summary: Mapping[str, float], per_class: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        [name, figure(int(row["objects"])), *(figure(row[key]) for key in ("AP", "AP50", "AP75", "AR100"))]
        for name, row in per_class.items()
    ]
    total = sum(int(row["objects"]) for row in per_class.values())
    rows.append(["all", str(total), *(figure(summary[key]) for key in ("AP", "AP50", "AP75", "AR100"))])
    sizes = "  ".join(f"{key} {figure(summary[key])}" for key in ("APs", "APm", "APl"))
    return f"{table(['class', 'objects', 'AP', 'AP50', 'AP75', 'AR100'], rows)}\nby size: {sizes}"


def print_json(content: Any) -> None:
    print(json.dumps(content))
