"""``gfl check-data``, ``gfl models`` and ``gfl info``."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..detector import build, get_config, list_models
from ..detector.data import CheckReport, check, open_split
from . import common
from .main import EXIT_FAILED


def add_check_data(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser("check-data", help="look for what is wrong with a data set")
    parser.set_defaults(run=_check_data)
    parser.add_argument("data", type=Path, metavar="DIR", help="folder in COCO's format")
    parser.add_argument("--split", choices=("train", "val", "test"), help="(default: train and val)")
    parser.add_argument("--classes", metavar="A,B")
    parser.add_argument("--headers", action="store_true", help="read the images' headers alone: faster, finds less")
    parser.add_argument("--show", type=common.natural, default=20, metavar="N", help="findings to list (%(default)s)")
    parser.add_argument("--json", action="store_true")
    return parser


def _check_data(options: argparse.Namespace) -> int:
    """Exit code 1 where something would stop a training run."""
    classes = options.classes.split(",") if options.classes else None
    reports = {}
    for split in [options.split] if options.split else ["train", "val"]:
        data = open_split(options.data, split, classes=classes, skip_bad=True)
        bar = common.progress(split, len(data), quiet=options.json, unit="img")
        reports[split] = check(data, read_images=not options.headers, progress=bar)
    if options.json:
        common.print_json({split: report.as_json() for split, report in reports.items()})
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


def add_models(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser("models", help="the models of the zoo")
    parser.set_defaults(run=_models)
    parser.add_argument("--json", action="store_true")
    return parser


def _models(options: argparse.Namespace) -> int:
    if options.json:
        common.print_json({name: asdict(get_config(name)) for name in list_models()})
        return 0
    rows = []
    for name in list_models():
        config = get_config(name)
        count = sum(parameter.numel() for parameter in build(name).parameters()) / 1e6
        sides = config.input.train_short_sides or (config.input.short_side,)
        recipe = config.recipe
        length = f"{recipe.iterations} it" if recipe.iterations is not None else f"{recipe.epochs} epochs"
        published = f"{config.published.ap}" if config.published is not None else "-"
        rows.append([name, f"{count:.1f} M", "-".join(map(str, sides)), length, str(recipe.batch_size), published])
    print(common.table(["model", "parameters", "short side", "recipe", "batch", "published AP"], rows))
    print("The AP is COCO's, as others published it for their weights.")
    return 0


def add_info(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser("info", help="which kernels run on which device, and why")
    parser.set_defaults(run=_info)
    parser.add_argument("--json", action="store_true")
    return parser


def _info(options: argparse.Namespace) -> int:
    from .. import info

    if options.json:
        common.print_json(info.collect())
    else:
        print(info.report())
    return 0
