"""How much faster and smaller is this than what you have, on your machine, at your sizes?

    python benchmarks/loss_bench.py                      two minutes on two CPU cores
    python benchmarks/loss_bench.py --quick              without torch.compile, whose C++ takes much of that time
    python benchmarks/loss_bench.py --sizes all --dtype bfloat16 --ops quality_focal_loss --json mine.json

`eager` is the usual formulas in PyTorch (benchmarks/eager/), `compile` the same under torch.compile, `ours` the
backend named. All are checked against the eager formulas first, outputs and gradients, and then take turns over inputs
that the caches do not hold, in several rounds through all rows; times are medians of the fastest quarter of their
samples, ± half the distance between the quartiles of all. `copies` is our time in copies of the main input, taken in
the same turns; `of copy` is our bandwidth as a share of the copy's, by the bytes that our kernels have to move
(harness/traffic.py). `extra MB` is what torch's allocator gave out at most beyond the inputs, the gradient among it.
A forward is without gradient, as in inference.

On a GPU a figure is the GPU's own time: of a CUDA graph of the step, or, where the step waits for the device and so
cannot be captured, of its kernels added up. Ratios and targets are of these. `call ms` is the time of calls that follow
one another, `host ms` the host's part of it, which is what small inputs wait for.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

if not __package__:  # started as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import columns, json_file, machine_facts, measurement, own_process, report, rounds, rows
from benchmarks.harness.rows import Row
from gfl_ops import _native

ROUNDS = 6
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    table = rows.table()
    ops = list(dict.fromkeys(row.op for row in table))
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--ops", nargs="+", metavar="OP", choices=ops, help=f"only these ops: {', '.join(ops)}")
    sizes = (*rows.SIZES, "all")
    parser.add_argument("--sizes", nargs="+", metavar="SIZE", choices=sizes, help=f"only these: {', '.join(sizes)}")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=["float32"], help="default: float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    parser.add_argument(
        "--backend",
        nargs="+",
        choices=columns.NAMES,
        help="what to measure (default: everything but the reference); naming compile compiles every size",
    )
    parser.add_argument("--quick", action="store_true", help="no torch.compile, and a third of the time for each row")
    parser.add_argument("--seconds", type=float, help="time to spend on each row (default: 1.2, small ones 0.3)")
    parser.add_argument(
        "--malloc",
        choices=("kept", "default"),
        default="kept",
        help="on a CPU: that it keeps freed memory (the default here), where eager PyTorch is at its best; or its own "
        "default, with which eager takes up to three times as long, by chance",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results, as they come")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the results as a table")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the speed-ups, as SVG")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="print what changed since an older --json file")
    options = parser.parse_args(arguments)
    options.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device")
    options.old = read_results(options.compare, parser) if options.compare else None
    return options


def read_results(path: Path, parser: argparse.ArgumentParser) -> list[dict[str, Any]]:
    try:
        return json.loads(path.read_text())["results"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        parser.error(f"--compare {path}: not a result file ({error})")


def chosen_rows(options: argparse.Namespace) -> list[Row]:
    found = [row for row in rows.table() if options.ops is None or row.op in options.ops]
    if options.sizes is not None:
        return [row for row in found if "all" in options.sizes or row.size in options.sizes]
    return [row for row in found if row.standard or options.ops is not None or options.device == "cuda"]


def chosen_columns(options: argparse.Namespace) -> list[columns.Column]:
    names = options.backend or [name for name in columns.NAMES if name != "reference"]
    if options.quick:
        names = [name for name in names if name != "compile"]
    if not any(name in columns.OURS for name in names):
        names = [*names, "native"]
    return columns.columns(tuple(names))


def seconds_for(row: Row, options: argparse.Namespace) -> float:
    """The large rows are those whose temporaries come and go, so that their times vary most."""
    if options.seconds:
        return options.seconds
    return (0.3 if row.size == "small" else 1.2) * (0.3 if options.quick else 1)


def rounds_of(options: argparse.Namespace, left_out: list[str]) -> rounds.Rounds:
    """In rounds, and each row in a process of its own, on a CPU. On a GPU row by row: its memory has an allocator that
    keeps it, and CUDA does not live through a fork."""
    chosen = chosen_columns(options)
    everywhere = options.backend is not None and "compile" in options.backend
    in_own_processes = options.device == "cpu" and own_process.is_possible()
    begin: Callable[..., rounds.Subject] = own_process.SameProcess
    if in_own_processes:
        begin = functools.partial(own_process.OwnProcess, keeps_memory=options.malloc == "kept")
    if in_own_processes and any(column.name == "compile" for column in chosen):
        own_process.prepare_to_compile()

    def make(task: rounds.Task) -> rounds.Subject | None:
        seconds = seconds_for(task.row, options)
        arguments = task.row, chosen, options.device, DTYPES[task.dtype], seconds, everywhere
        subject = begin(measurement.Measurement, *arguments)
        if subject.call("has_ours"):
            return subject
        left_out.append(task.row.name)
        subject.end()
        return None

    tasks = [rounds.Task(row, dtype) for row in chosen_rows(options) for dtype in options.dtype]
    if not in_own_processes:
        return rounds.Rounds(tasks, make, rounds=1, at_once=1)
    return rounds.Rounds(tasks, make, rounds=ROUNDS // 2 if options.quick else ROUNDS, at_once=rounds.rows_at_once())


def run(options: argparse.Namespace) -> int:
    content: dict[str, Any] = {
        "kind": "loss_bench",
        "command": ["loss_bench.py", *(Path(word).name for word in sys.argv[1:])],  # without folders of this machine
        "machine": machine_facts.facts(options.device),
        "results": [],
    }
    print(", ".join(f"{name} {value}" for name, value in content["machine"].items()))
    print(report.header(options.device), flush=True)
    start = time.monotonic()
    left_out: list[str] = []
    measured = rounds_of(options, left_out)
    for task, result in measured.results():
        content["results"].append(result)
        print("\n".join(report.table(result, task.row)), flush=True)
        if options.json:
            json_file.write_json(options.json, content)
    finish(options, content, left_out, measured.failed)
    print(f"{len(content['results'])} rows in {time.monotonic() - start:.0f} s")
    if measured.interrupted:
        print("interrupted: these are the rows measured until then")
        return 130
    return 1 if measured.failed or not content["results"] else 0


def finish(options: argparse.Namespace, content: dict[str, Any], left_out: list[str], failed: list[str]) -> None:
    results = content["results"]
    if left_out:
        print(f"no kernels of ours for this device: {', '.join(dict.fromkeys(left_out))}")
    for words in failed:
        print(f"FAILED {words}")
    if options.csv:
        report.write_csv(options.csv, results)
    if options.plot:
        from benchmarks.harness import charts

        options.plot.write_text(charts.speedups(content))
    if options.old is not None:
        print("\n".join(["", f"since {options.compare}:", *report.compare(options.old, results)]))


def main() -> None:
    options = parse()
    if _native.core() is None:
        sys.exit(f"loss_bench: the native core is not there ({_native.load_error}); pip install . builds it")
    sys.exit(run(options))


if __name__ == "__main__":
    main()
