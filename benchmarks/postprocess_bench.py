"""How much faster are NMS and post-processing than what you run now, on this machine?

    python benchmarks/postprocess_bench.py

`eager` is the usual pipeline of whole-tensor ops (tests/detection_oracle.py), with the plain NMS for its last step.
`plain` is greedy NMS as a loop over pairs in C++ (plain_nms.cpp, compiled on the spot), which is what libraries have
for CPUs; `torchvision` is theirs where it is installed. `native` is this library. The columns take turns, and their
results are checked against each other before anything is timed. Times are medians in milliseconds.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import timing
import torch
from torch import Tensor

import gfl_ops
from gfl_ops import _native

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import detection_oracle

STRIDES = (8, 16, 32, 64, 128)
Columns = dict[str, Callable[[], Any]]


@dataclass(frozen=True)
class Row:
    op: str
    size: str
    columns: Callable[[], Columns]
    against: str  # the column that the target is about
    target: float | None = None  # at least so many times faster


# ---- what it is compared with ------------------------------------------------------------------------


@cache
def plain_library() -> ctypes.CDLL | None:
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plain_nms.so"
        command = [
            compiler,
            "-O3",
            "-std=c++17",
            "-shared",
            "-fPIC",
            str(Path(__file__).with_name("plain_nms.cpp")),
            "-o",
            str(path),
        ]
        subprocess.run(command, check=True)
        library = ctypes.CDLL(str(path))
    library.plain_nms.restype = ctypes.c_int64
    library.plain_nms.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_void_p]
    return library


def plain_nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    library = plain_library()
    assert library is not None
    order = scores.argsort(descending=True, stable=True)
    sorted_boxes, keep = boxes[order].contiguous(), torch.empty(len(boxes), dtype=torch.int64)
    kept = library.plain_nms(sorted_boxes.data_ptr(), len(boxes), threshold, keep.data_ptr())
    return order[keep[:kept]]


def plain_batched_nms(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """Every class moved to a place of its own, as detectors do it."""
    if not len(boxes):
        return labels
    return plain_nms(boxes + (labels.to(boxes) * (boxes.max() + 1))[:, None], scores, threshold)


def has_torchvision() -> bool:
    return importlib.util.find_spec("torchvision") is not None


# ---- rows --------------------------------------------------------------------------------------------


def random_boxes(count: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    corner = torch.rand(count, 2) * torch.tensor([1200.0, 700.0])
    return torch.cat([corner, corner + 8 + torch.rand(count, 2) * 120], 1), torch.rand(count)


def nms_columns(count: int) -> Columns:
    boxes, scores = random_boxes(count)
    columns: Columns = {}
    if plain_library() is not None:
        columns["plain"] = lambda: plain_nms(boxes, scores, 0.6)
    if has_torchvision():
        from torchvision.ops import nms

        columns["torchvision"] = lambda: nms(boxes, scores, 0.6)
    columns["native"] = lambda: gfl_ops.nms(boxes, scores, 0.6)
    return columns


def batched_nms_columns(count: int) -> Columns:
    boxes, scores = random_boxes(count)
    labels = torch.randint(80, (count,))
    columns: Columns = {}
    if plain_library() is not None:
        columns["plain"] = lambda: plain_batched_nms(boxes, scores, labels, 0.6)
    if has_torchvision():
        from torchvision.ops import batched_nms

        columns["torchvision"] = lambda: batched_nms(boxes, scores, labels, 0.6)
    columns["native"] = lambda: gfl_ops.batched_nms(boxes, scores, labels, 0.6)
    return columns


def postprocess_columns(height: int, width: int, mean: float, batch: int = 1) -> Columns:
    torch.manual_seed(0)
    shapes = [(-(-height // stride), -(-width // stride)) for stride in STRIDES]
    cls_scores = [torch.randn(batch, 80, *shape) + mean for shape in shapes]
    bbox_preds = [torch.randn(batch, 68, *shape) for shape in shapes]
    inputs = (cls_scores, bbox_preds, STRIDES, [(height, width)] * batch)
    nms = plain_batched_nms if plain_library() is not None else None

    def native() -> list[tuple[Tensor, ...]]:
        found = gfl_ops.postprocess(*inputs).to_list()
        return [(image["boxes"], image["scores"], image["labels"]) for image in found]

    return {"eager": lambda: detection_oracle.postprocess(*inputs, batched_nms=nms), "native": native}


def table() -> list[Row]:
    rows = [
        Row("nms", f"{n:,}", lambda n=n: nms_columns(n), "plain", 3 if n == 5000 else None) for n in (100, 1000, 5000)
    ]
    rows += [Row("batched_nms", f"{n:,} of 80", lambda n=n: batched_nms_columns(n), "plain") for n in (1000, 5000)]
    return [
        *rows,
        Row("postprocess", "800x1344 N(-4,1)", lambda: postprocess_columns(800, 1344, -4.0), "eager", 10),
        Row("postprocess", "800x1344 N(-7,1)", lambda: postprocess_columns(800, 1344, -7.0), "eager"),
        Row("postprocess", "4x640x640 N(-4,1)", lambda: postprocess_columns(640, 640, -4.0, 4), "eager"),
    ]


# ---- measuring ---------------------------------------------------------------------------------------


def check(row: Row, columns: Columns) -> None:
    """No figure without the same result: the indices, or labels, scores and boxes."""
    expected = columns[next(iter(columns))]()
    got = columns["native"]()
    if isinstance(expected, Tensor):
        assert sorted(got.tolist()) == sorted(expected.tolist()), row.op
        return
    for image, truth in zip(got, expected, strict=True):
        for a, b in zip(image, truth, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-3, msg=row.op)


def measure(row: Row, seconds: float) -> dict[str, Any]:
    columns = row.columns()
    check(row, columns)
    steps = {column: (lambda _, run=run: run()) for column, run in columns.items()}
    for step in steps.values():
        for i in range(3):
            step(i)
    return {"op": row.op, "size": row.size, **timing.summary(*timing.in_turns(steps, seconds))}


HEADER = f"{'op':<14}{'size':<20}{'eager ms':>10}{'plain ms':>10}{'torchvision':>13}{'native':>9}{'faster':>9}"


def line(result: dict[str, Any], row: Row) -> str:
    times = result["ms"]
    cells = "".join(
        f"{format(times[column], '.3f') if column in times else '-':>{width}}"
        for column, width in (("eager", 10), ("plain", 10), ("torchvision", 13), ("native", 9))
    )
    if row.against not in times:
        return f"{row.op:<14}{row.size:<20}{cells}{'-':>9}"
    ratio = times[row.against] / times["native"]
    words = (
        "" if row.target is None else f"  {'met' if ratio >= row.target else 'MISSED'} >= {row.target:g}x {row.against}"
    )
    return f"{row.op:<14}{row.size:<20}{cells}{ratio:>9.1f}{words}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--ops", nargs="+", metavar="OP", help="only these ops")
    parser.add_argument("--seconds", type=float, default=2.0, help="time to spend on each row (default: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to a file")
    options = parser.parse_args()
    if _native.core() is None:
        parser.exit(
            1, f"postprocess_bench: the native core is not there ({_native.load_error}); pip install . builds it\n"
        )
    rows = [row for row in table() if not options.ops or row.op in options.ops]
    if not rows:
        parser.error(f"no such op; there are {', '.join(sorted({row.op for row in table()}))}")

    facts = timing.machine()
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(HEADER)
    results = []
    for row in rows:
        result = measure(row, options.seconds)
        results.append(result)
        print(line(result, row), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"machine": facts, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
