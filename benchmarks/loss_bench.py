"""How much faster are the fused losses than what you run now, on this machine?

    python benchmarks/loss_bench.py            everything, about two minutes on two CPU cores
    python benchmarks/loss_bench.py --quick    without torch.compile, whose C++ takes most of that time

Every column computes loss and gradient of the same inputs: `eager` as the formulas are usually written in PyTorch
(tests/oracle.py), `compile` the same under torch.compile, `native` this library. The columns take turns, call by call,
so that a drifting machine hits all alike, and large inputs rotate through more memory than the caches hold. Times are
medians. `copies` is native's time in copies of the op's main input, measured in the same turns. Results are checked
against eager before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timing
import torch
from torch import Tensor

import gfl_ops
from gfl_ops import _native

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import heads
import oracle
import oracle_gfl

CACHE_BYTES = 96 << 20  # inputs rotate through this much memory, and their gradients through as much again
Inputs = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """The design's targets: at least so many times faster, at most so many copies."""

    eager: float
    compiled: float
    copies: float | None = None


@dataclass(frozen=True)
class Row:
    op: str
    size: str
    main: str  # the input that gets a gradient
    make: Callable[[], Inputs]
    target: Target | None = None
    compiled: bool = False
    kwargs: dict[str, Any] = field(default_factory=dict)
    eager: Any = oracle

    def leaves(self, inputs: Inputs) -> list[Tensor]:
        """What gets a gradient: the main input, or the maps of a head."""
        return [inputs[self.main]] if self.op != "gfl_loss" else [*inputs["cls_scores"], *inputs["bbox_preds"]]

    def fresh(self, inputs: Inputs) -> Inputs:
        names = [self.main] if self.op != "gfl_loss" else ["cls_scores", "bbox_preds"]

        def copy(value: Any) -> Any:
            return [copy(x) for x in value] if isinstance(value, list) else value.detach().clone().requires_grad_()

        return inputs | {name: copy(inputs[name]) for name in names}

    def call(self, module: Any, inputs: Inputs) -> Tensor:
        result = getattr(module, self.op)(**inputs, **self.kwargs)
        if self.op == "gfl_loss":
            return sum(result[name] for name in heads.LOSSES) if isinstance(result, dict) else sum(result)
        if isinstance(result, tuple):  # the box loss: weighted as the GFL loss weights it
            return 2.0 * result[0] + 0.25 * result[1]
        return result if result.ndim == 0 else result.sum()


def class_inputs(rows: int, classes: int) -> Inputs:
    label = torch.full((rows,), classes)
    label[::100] = torch.randint(classes, label[::100].shape)
    return {"pred": torch.randn(rows, classes) - 4, "target": (label, torch.rand(rows))}


def focal_inputs(rows: int, classes: int) -> Inputs:
    inputs = class_inputs(rows, classes)
    return {"pred": inputs["pred"], "target": inputs["target"][0]}


def dfl_inputs(rows: int) -> Inputs:
    return {"pred": torch.randn(rows, 17), "target": torch.rand(rows) * 15.9}


def integral_inputs(rows: int) -> Inputs:
    return {"pred": torch.randn(rows // 4, 68)}


def random_boxes(rows: int) -> Tensor:
    corner = torch.rand(rows, 2) * 500
    return torch.cat([corner, corner + 10 + torch.rand(rows, 2) * 200], 1)


def iou_inputs(rows: int) -> Inputs:
    boxes = random_boxes(rows)
    return {"pred": boxes + torch.randn(rows, 4) * 5, "target": boxes}


def box_inputs(rows: int) -> Inputs:
    points = torch.rand(rows, 2) * 800
    boxes = torch.cat([points - 4 - torch.rand(rows, 2) * 90, points + 4 + torch.rand(rows, 2) * 90], 1)
    return {"edge_logits": torch.randn(rows, 68), "anchor_points": points, "target_boxes": boxes}


def head_inputs(images: int, gts: int) -> Inputs:
    head = heads.head(0, [gts] * images, (800, 1344), classes=80)
    return {"cls_scores": head.cls_scores, "bbox_preds": head.bbox_preds, "targets": head.targets}


def whole_loss(size: str, images: int, gts: int, target: float) -> Row:
    """At 800 x 1344 with 80 classes, assignment included."""
    make = lambda: head_inputs(images, gts)  # noqa: E731
    return Row("gfl_loss", size, "", make, Target(target, 0), kwargs={"strides": heads.STRIDES}, eager=oracle_gfl)


def table() -> list[Row]:
    giou, box = {"kind": "giou"}, {"stride": 8.0}
    rows = [
        Row("quality_focal_loss", "44,800x80", "pred", lambda: class_inputs(44800, 80), Target(14, 6, 3), True),
        Row("sigmoid_focal_loss", "44,800x80", "pred", lambda: focal_inputs(44800, 80), None, True),
        Row("distribution_focal_loss", "80,000x17", "pred", lambda: dfl_inputs(80000), Target(12, 6, 4), True),
        Row("integral", "80,000x17", "pred", lambda: integral_inputs(80000), Target(5, 5, 4), True),
        Row("iou_loss", "100,000 giou", "pred", lambda: iou_inputs(100000), Target(25, 8), True, giou),
        Row("distribution_box_loss", "2,000x4x17", "edge_logits", lambda: box_inputs(2000), None, True, box),
        whole_loss("2x7 gts", 2, 7, 15),
        whole_loss("2x300 gts", 2, 300, 60),
        whole_loss("1x1,000 gts", 1, 1000, 150),
        Row("quality_focal_loss", "8,400x80", "pred", lambda: class_inputs(8400, 80)),
    ]
    for n in (8, 64, 512):
        small = Target(1, 0)
        rows += [
            Row("quality_focal_loss", f"{n}x80", "pred", lambda n=n: class_inputs(n, 80), small),
            Row("sigmoid_focal_loss", f"{n}x80", "pred", lambda n=n: focal_inputs(n, 80), small),
            Row("distribution_focal_loss", f"{n}x17", "pred", lambda n=n: dfl_inputs(n), small),
            Row("integral", f"{n}x17", "pred", lambda n=n: integral_inputs(max(n, 4)), small),
            Row("iou_loss", f"{n} giou", "pred", lambda n=n: iou_inputs(n), small, kwargs=giou),
            Row("distribution_box_loss", f"{n}x4x17", "edge_logits", lambda n=n: box_inputs(n), small, kwargs=box),
        ]
    return rows


def forward_backward(row: Row, module: Any, inputs: Inputs) -> None:
    for leaf in row.leaves(inputs):
        leaf.grad = None
    row.call(module, inputs).backward()


def check(row: Row, column: str, run: Callable[[Inputs], None], inputs: Inputs) -> None:
    """The gradient against eager's: no figure without it."""
    forward_backward(row, row.eager, inputs)
    expected = [leaf.grad for leaf in row.leaves(inputs)]
    run(inputs)
    for leaf, value in zip(row.leaves(inputs), expected, strict=True):
        atol = 1e-6 * float(value.abs().max())
        torch.testing.assert_close(leaf.grad, value, rtol=1e-3, atol=atol, msg=f"{row.op}: {column}")


def columns(row: Row, compile_too: bool) -> dict[str, Callable[[Inputs], None]]:
    result = {"eager": lambda inputs: forward_backward(row, row.eager, inputs)}
    if compile_too and row.compiled:
        torch._dynamo.reset()
        compiled = torch.compile(lambda inputs: row.call(oracle, inputs))

        def run_compiled(inputs: Inputs) -> None:
            inputs[row.main].grad = None
            compiled(inputs).backward()

        result["compile"] = run_compiled
    result["native"] = lambda inputs: forward_backward(row, gfl_ops, inputs)
    return result


def rotation(row: Row) -> list[Inputs]:
    """Enough copies of the inputs that none is still cached when its turn comes again (at most 16)."""
    torch.manual_seed(0)
    first = row.make()
    size = sum(leaf.nbytes for leaf in row.leaves(first))
    count = min(16, max(1, CACHE_BYTES // max(size, 1))) if size > 1 << 20 else 1
    return [row.fresh(first) for _ in range(count)]


def measure(row: Row, compile_too: bool, seconds: float) -> dict[str, Any]:
    """Medians in milliseconds of every column and of a copy, taken in turns."""
    inputs = rotation(row)
    runs = columns(row, compile_too)
    for column, run in runs.items():
        check(row, column, run, inputs[0])
    sources = [[leaf.detach() for leaf in row.leaves(i)] for i in inputs]
    targets = [[torch.empty_like(x) for x in source] for source in sources]

    def copy(i: int) -> None:
        for target, source in zip(targets[i % len(targets)], sources[i % len(sources)], strict=True):
            target.copy_(source)

    steps: dict[str, Callable[[int], None]] = {
        column: (lambda i, run=run: run(inputs[i % len(inputs)])) for column, run in runs.items()
    }
    steps["copy"] = copy
    for step in steps.values():  # twice through the rotation: until then the allocator still asks for fresh pages
        for i in range(max(3, 2 * len(inputs))):
            step(i)
    return {"op": row.op, "size": row.size, **timing.summary(*timing.in_turns(steps, seconds))}


def ratio(result: dict[str, Any], column: str) -> float | None:
    times = result["ms"]
    return times[column] / times["native"] if column in times else None


def verdict(result: dict[str, Any], target: Target | None) -> str:
    if target is None:
        return ""
    checks = [
        (ratio(result, "eager"), target.eager, f">= {target.eager:g}x eager"),
        (ratio(result, "compile"), target.compiled, f">= {target.compiled:g}x compile"),
    ]
    words = [f"{'met' if value >= least else 'MISSED'} {text}" for value, least, text in checks if value and least]
    if target.copies:
        copies = result["ms"]["native"] / result["ms"]["copy"]
        words.append(f"{'met' if copies <= target.copies else 'MISSED'} <= {target.copies:g} copies")
    return ", ".join(words)


HEADER = f"{'op':<24}{'size':<14}{'eager ms':>9}{'compile':>9}{'native':>9}{'x eager':>9}{'x comp.':>8}{'copies':>8}"


def line(result: dict[str, Any], target: Target | None) -> str:
    def cell(value: float | None, width: int, digits: int) -> str:
        return f"{'-' if value is None else format(value, f'.{digits}f'):>{width}}"

    times = result["ms"]
    large = times["copy"] > 0.02  # below that a copy is all overhead
    return (
        f"{result['op']:<24}{result['size']:<14}{cell(times['eager'], 9, 3)}{cell(times.get('compile'), 9, 3)}"
        f"{cell(times['native'], 9, 3)}{cell(ratio(result, 'eager'), 9, 1)}{cell(ratio(result, 'compile'), 8, 1)}"
        f"{cell(times['native'] / times['copy'] if large else None, 8, 1)}  {verdict(result, target)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="leave out the torch.compile column")
    parser.add_argument("--ops", nargs="+", metavar="OP", help="only these ops")
    parser.add_argument("--seconds", type=float, default=2.0, help="time to spend on each row (default: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to a file")
    options = parser.parse_args()
    if _native.core() is None:
        parser.exit(1, f"loss_bench: the native core is not there ({_native.load_error}); pip install . builds it\n")
    rows = [row for row in table() if not options.ops or row.op in options.ops]
    if not rows:
        parser.error(f"no such op; there are {', '.join(sorted({row.op for row in table()}))}")

    facts = timing.machine()
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(HEADER)
    results = []
    for row in rows:
        result = measure(row, not options.quick, options.seconds)
        results.append(result)
        print(line(result, row.target), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"machine": facts, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
