"""``gfl check-data``, ``gfl models`` and ``gfl info``."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import torch

from ..detector import ModelConfig, build, get_config, list_models
from ..detector.command.options import option, positional, read
from ..detector.command.printing import print_json, progress, table
from ..detector.command.running import EXIT_FAILED, IMAGES, Command
from ..detector.command.shared import Split
from ..detector.data import CheckReport, check, open_split


@dataclass(frozen=True, kw_only=True)
class JsonOptions:
    section: ClassVar[str] = "output"
    json: bool = option("print JSON", False)


@dataclass(frozen=True, kw_only=True)
class CheckDataOptions(JsonOptions):
    section: ClassVar[str] = "data"
    data: Path = positional("folder in COCO's format", metavar="DIR")
    split: Split | None = option("the part of the data set (default: train and val)")
    classes: tuple[str, ...] | None = option("use only these classes, in this order")
    headers: bool = option("read only the headers of the images: faster, finds less", False)
    show: int = option("how many findings to list", 20)


def _check_data(arguments: argparse.Namespace) -> int:
    """The exit code is 1 if there are errors that would stop a training run."""
    options = read(CheckDataOptions, arguments)
    reports = {}
    for split in [options.split] if options.split else ["train", "val"]:
        data = open_split(options.data, split, classes=options.classes, skip_bad=True)
        bar = progress(split, len(data), quiet=options.json, unit="img")
        reports[split] = check(data, read_images=not options.headers, progress=bar)
    if options.json:
        print_json({split: report.as_json() for split, report in reports.items()})
    else:
        print("\n\n".join(_describe(split, report, options.show) for split, report in reports.items()))
    return EXIT_FAILED if any(report.fatal for report in reports.values()) else 0


def _describe(split: str, report: CheckReport, shown: int) -> str:
    lines = [
        f"{split}: {report.path}",
        f"  {report.images} images, {report.images_without_boxes} of them without a box; {report.boxes} boxes",
        "  boxes: " + ", ".join(f"{name} {count}" for name, count in report.boxes_per_class.items()),
        "  sides in pixels: " + ", ".join(f"{name} {side:g}" for name, side in report.side.items()),
    ]
    if not report.findings:
        return "\n".join([*lines, "  nothing is wrong with it"])
    kinds = ", ".join(f"{count} x {kind}" for kind, count in sorted(report.kinds().items()))
    lines.append(f"  {len(report.fatal)} errors, {len(report.findings) - len(report.fatal)} warnings: {kinds}")
    ordered = sorted(report.findings, key=lambda finding: not finding.fatal)
    lines += [f"  {'error' if finding.fatal else 'warning'}: {finding}" for finding in ordered[:shown]]
    if len(ordered) > shown:
        lines.append(f"  and {len(ordered) - shown} more; --show {len(ordered)} lists them")
    return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class ModelsOptions(JsonOptions):
    section: ClassVar[str] = "models"
    variants: bool = option("also list the rows of the paper's tables", False)


def _models(arguments: argparse.Namespace) -> int:
    options = read(ModelsOptions, arguments)
    configs = [get_config(name) for name in list_models(variants=options.variants)]
    if options.json:
        print_json({config.name: {"parts": _parts(config), **asdict(config)} for config in configs})
        return 0
    rows = []
    for config in configs:
        with torch.device("meta"):  # counting needs no memory
            count = sum(parameter.numel() for parameter in build(config).parameters()) / 1e6
        sides = config.input.train_short_sides or config.input.fixed_size or (config.input.short_side,)
        recipe = config.recipe
        length = f"{recipe.iterations} it" if recipe.iterations is not None else f"{recipe.epochs} epochs"
        published = f"{config.published.ap}" if config.published is not None else "-"
        size = "-".join(map(str, sides))
        parts = " ".join(_parts(config).values())
        rows.append([config.name, parts, f"{count:.1f} M", size, length, str(recipe.batch_size), published])
    print(table(["model", "parts", "parameters", "size", "recipe", "batch", "published AP"], rows))
    print("The AP is COCO's, as published for the original weights.")
    return 0


def _parts(config: ModelConfig) -> dict[str, str]:
    head = config.head
    parts = {"assigner": head.assigner, "boxes": head.boxes, "quality": head.quality}
    return {name: type(part).__name__ for name, part in parts.items()}


def _info(arguments: argparse.Namespace) -> int:
    from .. import info

    if read(JsonOptions, arguments).json:
        print_json(info.collect())
    else:
        print(info.report())
    return 0


CHECK_DATA = Command("check-data", "check a data set for errors", (CheckDataOptions,), _check_data, IMAGES)
MODELS = Command("models", "list the models, with their parts, recipes and published AP", (ModelsOptions,), _models)
INFO = Command("info", "show which kernels run on which device, and why", (JsonOptions,), _info)
