"""One row of the table: checked, then timed in turns, then counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import columns as columns_of
import counting
import inputs
import timing
import torch
from columns import Call, Column
from inputs import Inputs
from rows import Row
from torch import Tensor

FORWARD, BACKWARD = "forward", "forward+backward"
ROTATED_BYTES = {"cpu": 96 << 20, "cuda": 256 << 20}  # more than the caches hold
MOST_COPIES = 16
COUNTED = ("eager", *columns_of.OURS)  # launches and waits on a GPU; each look costs a tenth of a second

# Of a value, and of the largest value of its tensor: what the results may differ by.
TOLERANCES = {
    torch.float64: (1e-6, 1e-9),
    torch.float32: (1e-3, 2e-6),
    torch.bfloat16: (1e-2, 1e-4),
    torch.float16: (2e-3, 1e-4),
}


class Mismatch(AssertionError):
    """A column's result is not the reference's: it gets no figure."""


def forward(call: Call, made: Inputs) -> Any:
    with torch.no_grad():
        return call(made)


def step(row: Row, call: Call, made: Inputs) -> Tensor:
    for leaf in row.leaves(made):
        leaf.grad = None
    loss = row.scalar(call(made))
    loss.backward()
    return loss


def expected_of(row: Row, made: Inputs, device: str) -> list[Tensor]:
    """The eager formulas' outputs and gradients in at least float32."""
    dtype = row.leaves(made)[0].dtype if row.main else torch.float32
    wide = row.on(made, device, torch.float64 if dtype == torch.float64 else torch.float32)
    return results(row, columns_of.eager_call(row), wide)


def results(row: Row, call: Call, made: Inputs) -> list[Tensor]:
    found = inputs.tensors(forward(call, made))
    if row.gradient:
        step(row, call, made)
        found += [leaf.grad for leaf in row.leaves(made) if leaf.grad is not None]
    return [x.detach().double() for x in found]


def check(row: Row, column: Column, found: list[Tensor], expected: list[Tensor], dtype: torch.dtype) -> None:
    relative, absolute = TOLERANCES[dtype]
    if column.name in columns_of.LIBRARIES and row.gradient:  # whose losses may be reduced otherwise
        found, expected = found[-len(row.main) :], expected[-len(row.main) :]
    if [x.shape for x in found] != [x.shape for x in expected]:
        shapes = [[tuple(x.shape) for x in tensors] for tensors in (found, expected)]
        raise Mismatch(f"{row.name}: {column.name} gives shapes {shapes[0]}, expected {shapes[1]}")
    for got, truth in zip(found, expected, strict=True):
        scale = float(truth.abs().max()) if truth.numel() else 0.0
        excess = (got - truth).abs() - relative * truth.abs() - absolute * scale
        if excess.numel() and not float(excess.max()) <= 0:
            raise Mismatch(f"{row.name}: {column.name} is off by {float((got - truth).abs().max()):.3g} of {scale:.3g}")


def rotation(row: Row, device: str, dtype: torch.dtype) -> list[Inputs]:
    """Enough copies of the inputs that none is still cached when its turn comes again."""
    torch.manual_seed(0)
    made = row.make()
    first = row.on(made, device, dtype)
    size = sum(leaf.nbytes for leaf in row.leaves(first))
    count = min(MOST_COPIES, max(1, ROTATED_BYTES[device] // size)) if size > 1 << 20 else 1
    return [first, *(row.on(first, device, dtype) for _ in range(count - 1))]


def copies_of(row: Row, rotated: list[Inputs]) -> Callable[[int], None] | None:
    """Copies the main inputs, which is what reading and writing them once costs."""
    sources = [[leaf.detach() for leaf in row.leaves(made)] for made in rotated]
    if not sources[0]:
        return None
    copies = [[torch.empty_like(x) for x in source] for source in sources]

    def copy(i: int) -> None:
        for target, source in zip(copies[i % len(copies)], sources[i % len(sources)], strict=True):
            target.copy_(source)

    return copy


def measure(
    row: Row, chosen: list[Column], device: str, dtype: torch.dtype, seconds: float, everywhere: bool = False
) -> dict[str, Any] | None:
    """Milliseconds, spread and counts by pass and column; None where none of ours has the op there."""
    calls = {}
    for column in chosen:
        if columns_of.without(row, column, everywhere):
            continue
        call = column.call(row, device)
        if call is not None:
            calls[column] = call
    if not any(column.ours for column in calls):
        return None

    rotated = rotation(row, device, dtype)
    expected = expected_of(row, rotated[0], device)
    for column, call in calls.items():
        if column.name == "eager":  # what is expected came from it
            continue
        check(row, column, results(row, call, rotated[0]), expected, dtype)
    del expected

    runs: dict[str, dict[str, Callable[[Inputs], Any]]] = {FORWARD: {}}
    if row.gradient:
        runs[BACKWARD] = {}
    for column, call in calls.items():
        runs[FORWARD][column.name] = lambda made, call=call: forward(call, made)
        if row.gradient:
            runs[BACKWARD][column.name] = lambda made, call=call: step(row, call, made)
    samples = _timed(row, runs, rotated, seconds, device)
    copy = samples.pop("copy", None)
    return {
        "op": row.op,
        "shape": row.shape,
        "size": row.size,
        "dtype": str(dtype).removeprefix("torch."),
        "device": device,
        "bytes": sum(leaf.nbytes for leaf in row.leaves(rotated[0])),
        "copy_ms": None if copy is None else timing.median(copy),
        "turns": len(next(iter(samples.values()))),
        "passes": {
            part: {
                name: _figures(samples[f"{part} {name}"], run, rotated[0], device, name in COUNTED)
                for name, run in named.items()
            }
            for part, named in runs.items()
        },
    }


def _timed(
    row: Row, runs: dict[str, dict[str, Callable[[Inputs], Any]]], rotated: list[Inputs], seconds: float, device: str
) -> dict[str, list[float]]:
    steps: dict[str, timing.Step] = {}
    for part, named in runs.items():
        for name, run in named.items():
            steps[f"{part} {name}"] = lambda i, run=run: run(rotated[i % len(rotated)])
    copy = copies_of(row, rotated)
    if copy is not None:
        steps["copy"] = copy
    slow = [name for name, one in steps.items() if timing.warm_up(one, max(3, 2 * len(rotated)))]
    return timing.in_turns(steps, seconds, device, slow)


def _figures(
    samples: list[float], run: Callable[[Inputs], Any], made: Inputs, device: str, counted: bool
) -> dict[str, Any]:
    for leaf in inputs.tensors(list(made.values())):
        leaf.grad = None  # or the first thing that is counted would be its release
    figures: dict[str, Any] = {
        "ms": timing.median(samples),
        "spread": timing.spread(samples),
        "peak_bytes": counting.peak_bytes(lambda: run(made), device),
    }
    if device == "cuda" and counted:
        calls = counting.cuda_calls(lambda: run(made))
        figures |= {"launches": calls.launches, "syncs": calls.syncs}
    return figures
