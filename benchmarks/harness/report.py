"""Results as a table, as CSV, and beside older ones."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.columns import OURS
from benchmarks.harness.json_file import rounded
from benchmarks.harness.measurement import BACKWARD, FORWARD
from benchmarks.harness.rows import Row, Target

SMALL_COPY = {"cpu": 0.02, "cuda": 0.005}  # milliseconds; a copy that takes less is all overhead


@dataclass(frozen=True)
class Line:
    """One backend's figures for one pass of a row."""

    op: str
    shape: str
    size: str
    dtype: str
    device: str
    part: str
    backend: str
    ms: float
    spread: float
    peak_bytes: int
    eager_ms: float | None
    eager_peak_bytes: int | None
    compile_ms: float | None
    others_ms: dict[str, float]
    copies: float | None  # our time, in copies of the main input
    moved_copies: float | None  # what our kernels move, likewise: a copy reads and writes once
    call_ms: float | None  # on a GPU, where `ms` is its own time: calls one after the other
    host_ms: float | None  # and the host's part of one
    launches: int | None
    syncs: int | None

    @property
    def over_eager(self) -> float | None:
        return None if self.eager_ms is None else self.eager_ms / self.ms

    @property
    def over_compile(self) -> float | None:
        return None if self.compile_ms is None else self.compile_ms / self.ms

    @property
    def bandwidth(self) -> float | None:
        """As a share of the copy's."""
        return None if self.copies is None or self.moved_copies is None else self.moved_copies / self.copies

    @property
    def key(self) -> tuple[str, ...]:
        return self.op, self.shape, self.dtype, self.device, self.part, self.backend


def lines(result: dict[str, Any]) -> Iterator[Line]:
    copy_ms = result["copy_ms"]
    counts = copy_ms is not None and copy_ms >= SMALL_COPY[result["device"]] and len(result["passes"]) > 1
    for part, columns in result["passes"].items():
        eager, compiled = columns.get("eager", {}), columns.get("compile", {})
        moved = result.get("moved_bytes", {}).get(part, 0)
        for backend in (name for name in OURS if name in columns):
            own = columns[backend]
            yield Line(
                *(result[name] for name in ("op", "shape", "size", "dtype", "device")),
                part=part,
                backend=backend,
                ms=own["ms"],
                spread=own["spread"],
                peak_bytes=own["peak_bytes"],
                eager_ms=eager.get("ms"),
                eager_peak_bytes=eager.get("peak_bytes"),
                compile_ms=compiled.get("ms"),
                others_ms={name: c["ms"] for name, c in columns.items() if name not in ("eager", "compile", *OURS)},
                copies=own["ms"] / copy_ms if counts else None,
                moved_copies=moved / (2 * result["bytes"]) if counts and moved else None,
                call_ms=own.get("call_ms"),
                host_ms=own.get("host_ms"),
                launches=own.get("launches"),
                syncs=own.get("syncs"),
            )


# ---- the table -------------------------------------------------------------------------------------------

COLUMNS = (
    ("op", 30),
    ("size", 20),
    ("pass", 8),
    ("backend", 10),
    ("eager ms", 10),
    ("compile", 9),
    ("ours", 9),
    ("±%", 5),
    ("x eager", 9),
    ("x comp.", 8),
    ("copies", 8),
    ("of copy", 8),
    ("extra MB", 10),
    ("eager MB", 10),
)
CUDA_COLUMNS = (("call ms", 9), ("host ms", 9), ("launches", 9), ("syncs", 6))
SHORT = {FORWARD: "fwd", BACKWARD: "fwd+bwd"}


def header(device: str) -> str:
    columns = (*COLUMNS, *(CUDA_COLUMNS if device == "cuda" else ()))
    return "".join(f"{name:<{width}}" if i < 4 else f"{name:>{width}}" for i, (name, width) in enumerate(columns))


def cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def text(line: Line, targets: dict[str, Target]) -> str:
    cells = [
        cell(line.eager_ms, 3),
        cell(line.compile_ms, 3),
        cell(line.ms, 3),
        cell(100 * line.spread, 0),
        cell(line.over_eager, 1),
        cell(line.over_compile, 1),
        cell(line.copies, 1),
        "-" if line.bandwidth is None else f"{100 * line.bandwidth:.0f} %",
        cell(line.peak_bytes / 1e6, 2),
        cell(None if line.eager_peak_bytes is None else line.eager_peak_bytes / 1e6, 2),
    ]
    names = [
        line.op,
        line.shape + ("" if line.dtype == "float32" else f" {line.dtype}"),
        SHORT[line.part],
        line.backend,
    ]
    columns = COLUMNS
    if line.device == "cuda":
        cells += [cell(line.call_ms, 3), cell(line.host_ms, 3), cell(line.launches, 0), cell(line.syncs, 0)]
        columns = (*COLUMNS, *CUDA_COLUMNS)
    written = "".join(
        f"{value:<{width}}" if i < 4 else f"{value:>{width}}"
        for i, (value, (_, width)) in enumerate(zip(names + cells, columns, strict=True))
    )
    others = ", ".join(f"{name} {ms:.3f} ms" for name, ms in line.others_ms.items())
    return f"{written}  {'; '.join(filter(None, [others, ', '.join(verdicts(line, targets))]))}".rstrip()


def verdicts(line: Line, targets: dict[str, Target]) -> list[str]:
    """The targets of the last pass, each with whether it is met."""
    target = targets.get(line.device)
    if target is None or line.backend == "reference" or line.dtype != "float32":
        return []
    limits = [
        (line.over_eager, target.eager, 1, "x eager"),
        (line.over_compile, target.compiled, 1, "x compile"),
        (line.copies, target.copies, -1, " copies"),
        (line.bandwidth, target.bandwidth, 1, " of a copy's bandwidth"),
        (line.launches, target.launches, -1, " launches"),
        (line.syncs, target.syncs, -1, " syncs"),
    ]
    return [
        f"{'met' if sign * value >= sign * limit else 'MISSED'} {'>=' if sign > 0 else '<='} {limit:g}{unit}"
        for value, limit, sign, unit in limits
        if value is not None and limit is not None
    ]


def table(result: dict[str, Any], row: Row) -> list[str]:
    """Targets stand beside the last pass: forward and backward, or the forward of an op that has no backward."""
    last = list(result["passes"])[-1]
    return [text(line, row.targets if line.part == last else {}) for line in lines(result)]


# ---- files -----------------------------------------------------------------------------------------------


def write_csv(path: Path, results: list[dict[str, Any]]) -> None:
    """A line for each row, pass and column of the measurement."""
    names = ("op", "shape", "size", "dtype", "device", "pass", "column")
    figures = ("ms", "spread", "call_ms", "host_ms", "peak_bytes", "launches", "syncs")
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*names, *figures, "copy_ms"])
        for result in results:
            of_row = [result[name] for name in names[:5]]
            for part, columns in result["passes"].items():
                for name, found in columns.items():
                    values = [found.get(figure, "") for figure in figures]
                    writer.writerow([*of_row, part, name, *rounded(values), rounded(result["copy_ms"])])


# ---- beside older results --------------------------------------------------------------------------------


def compare(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[str]:
    """How the speed-up over eager (else the time) changed: what a machine's own pace has no part in."""
    before = {line.key: line for result in old for line in lines(result)}
    found = []
    for line in (line for result in new for line in lines(result)):
        other = before.pop(line.key, None)
        if other is None:
            found.append(f"{name_of(line)}: new")
        elif line.over_eager is not None and other.over_eager is not None:
            change = line.over_eager / other.over_eager - 1
            found.append(f"{name_of(line)}: {other.over_eager:.2f} to {line.over_eager:.2f} x eager ({change:+.0%})")
        else:
            found.append(f"{name_of(line)}: {other.ms:.3f} to {line.ms:.3f} ms ({line.ms / other.ms - 1:+.0%})")
    return found + [f"{name_of(line)}: not measured now" for line in before.values()]


def name_of(line: Line) -> str:
    return f"{line.op} {line.shape} {line.dtype} {SHORT[line.part]} {line.backend}"
