"""``gfl eval``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..detector.checkpoint import write_atomically
from ..detector.engine import connect
from ..detector.engine.checkpoints import write_json
from ..detector.evaluation import Evaluation, evaluate
from . import common


def add(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser("eval", help="COCO's figures of a model on a data set")
    parser.set_defaults(run=run)
    parser.add_argument("weights", type=Path, nargs="?", metavar="FILE", help="(default: the newest run's best)")
    parser.add_argument("--model", help="a name from `gfl models`, where the file does not say it")
    common.add_data(parser)
    parser.add_argument("--split", choices=("train", "val", "test"), default="val")
    parser.add_argument("--batch-size", type=common.positive, default=8, metavar="N", help="(%(default)s)")
    common.add_input(parser)
    common.add_device(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="write results.json, metrics.json and the report there")
    parser.add_argument("--json", action="store_true", help="the figures as JSON on stdout, no progress bar")
    return parser


def run(options: argparse.Namespace) -> int:
    common.set_threads(options)
    model, classes = common.load_model(options)
    data = common.open_data(options, options.split)
    if len(data.classes) != len(classes):
        raise ValueError(f"the model has {len(classes)} classes, the data {len(data.classes)}: --classes chooses")
    with connect(options.device) as ranks:
        quiet = options.json or not ranks.is_main
        bar = common.progress("evaluation", quiet=quiet)
        result = evaluate(
            model.to(ranks.device), data, ranks, batch_size=options.batch_size, workers=options.workers, progress=bar
        )
        if ranks.is_main:
            _show(result, model, data, options)
    return 0


def _show(result: Evaluation, model: Any, data: Any, options: argparse.Namespace) -> None:
    written = {}
    if options.out is not None:
        from ..detector.report import write_report

        options.out.mkdir(parents=True, exist_ok=True)
        written = write_results(result, options.out)
        written["report"] = str(write_report(options.out, result, model, data))
    if options.json:
        common.print_json({**result.as_json(), "files": written})
        return
    print(common.metrics_table(result.metrics.summary, result.metrics.per_class))
    calibration = result.quality.calibration()
    if calibration["correlation"] is not None:
        rows = [[f"{b['spread']:.2f}", f"{b['error']:.2f}", str(b["edges"])] for b in calibration["bins"]]
        print("\nlocalisation: predicted spread and actual error of the edges, in pixels")
        print(common.table(["spread", "error", "edges"], rows))
        print(f"rank correlation {calibration['correlation']:.2f}")
    for name, path in written.items():
        print(f"{name}: {path}")


def write_results(result: Evaluation, out: Path) -> dict[str, str]:
    """The detections as COCO's test server takes them, and the figures."""
    rows = json.dumps(result.results).encode()
    write_atomically(out / "results.json", lambda file: file.write(rows))
    write_json(out / "metrics.json", result.as_json())
    return {"results": str(out / "results.json"), "metrics": str(out / "metrics.json")}
