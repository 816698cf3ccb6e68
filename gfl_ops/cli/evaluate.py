"""``gfl eval``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..detector import Detector
from ..detector.command.options import option, positional, read
from ..detector.command.printing import metrics_table, print_json, progress, table
from ..detector.command.running import TRAINING, Command
from ..detector.command.shared import DataOptions, DeviceOptions, Split, open_data, set_threads
from ..detector.data import DetectionData
from ..detector.engine import connect
from ..detector.evaluation import Evaluation, evaluate
from .weights import ModelOptions, load_model


@dataclass(frozen=True, kw_only=True)
class EvalOptions(ModelOptions, DataOptions, DeviceOptions):
    section: ClassVar[str] = "evaluation"
    weights: Path | None = positional("weights (default: the best of the newest run)", None, metavar="FILE")
    split: Split = option("the part of the data set", "val")
    batch_size: int = option("images at a time", 8, at_least=1)
    workers: int = option("processes that read images", 0)
    out: Path | None = option("write results.json, metrics.json and the report to this folder", metavar="DIR")
    json: bool = option("print the metrics as JSON, and no progress bar", False)


def _evaluate(arguments: argparse.Namespace) -> int:
    options = read(EvalOptions, arguments)
    set_threads(options)
    model, classes = load_model(options.weights, options)
    data = open_data(options, options.split)
    if len(data.classes) != len(classes):
        raise ValueError(f"the model has {len(classes)} classes, the data {len(data.classes)}: choose with --classes")
    with connect(options.device) as ranks:
        quiet = options.json or not ranks.is_main
        bar = progress("evaluation", quiet=quiet)
        result = evaluate(
            model.to(ranks.device), data, ranks, batch_size=options.batch_size, workers=options.workers, progress=bar
        )
        if ranks.is_main:
            _show(result, model, data, options)
    return 0


def _show(result: Evaluation, model: Detector, data: DetectionData, options: EvalOptions) -> None:
    written: dict[str, str] = {}
    if options.out is not None:
        from ..detector.report import write_report

        options.out.mkdir(parents=True, exist_ok=True)
        written = result.write(options.out)
        written["report"] = str(write_report(options.out, result, model, data))
    if options.json:
        print_json({**result.as_json(), "files": written})
        return
    print(metrics_table(result.metrics.summary, result.metrics.per_class))
    calibration = result.quality.calibration()
    if calibration["correlation"] is not None:
        rows = [[f"{b['spread']:.2f}", f"{b['error']:.2f}", str(b["edges"])] for b in calibration["bins"]]
        print("\nlocalisation: predicted spread and actual error of the edges, in pixels")
        print(table(["spread", "error", "edges"], rows))
        print(f"rank correlation {calibration['correlation']:.2f}")
    for name, path in written.items():
        print(f"{name}: {path}")


COMMAND = Command("eval", "compute COCO's metrics of a model on a data set", (EvalOptions,), _evaluate, TRAINING)
