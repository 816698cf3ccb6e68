"""Charts of results, as SVG without any library.

    python -m benchmarks.harness.charts benchmarks/results/cpu-….json --folder docs/charts

Speed-up by op, extra memory by number of ground truths, and time against the least that memory allows.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from benchmarks.harness import report
from benchmarks.harness.measurement import BACKWARD
from benchmarks.harness.report import Line

LABELS, BARS, VALUES = 300, 420, 110  # widths of a chart's three parts, in pixels
ROW, BAR, TOP, BOTTOM = 18, 7, 56, 42
COLORS = ("#2166ac", "#b2182b", "#878787")
STYLE = "font-family='Helvetica, Arial, sans-serif' fill='#222'"


@dataclass(frozen=True)
class Bar:
    label: str
    values: tuple[float | None, ...]  # one for each series
    words: str  # beside the bars


@dataclass(frozen=True)
class Chart:
    title: str
    note: str
    series: tuple[str, ...]
    bars: Sequence[Bar]
    mark: float | None = None  # a line at this value
    logarithmic: bool = True


def svg(chart: Chart) -> str:
    values = [value for bar in chart.bars for value in bar.values if value is not None and value > 0]
    if chart.mark is not None:
        values.append(chart.mark)
    scale = _Scale(values or [1.0], chart.logarithmic)
    height = TOP + ROW * len(chart.bars) + BOTTOM
    width = LABELS + BARS + VALUES
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' "
        f"viewBox='0 0 {width} {height}' role='img' aria-label='{escape(chart.title)}'>",
        "<rect width='100%' height='100%' fill='white'/>",
        f"<text x='12' y='20' {STYLE} font-size='12' font-weight='bold'>{escape(chart.title)}</text>",
        _legend(chart.series),
    ]
    bottom = height - BOTTOM + 4
    for tick in scale.ticks():
        x = scale.place(tick)
        parts.append(f"<line x1='{x:.1f}' x2='{x:.1f}' y1='{TOP - 6}' y2='{bottom}' stroke='#ddd'/>")
        parts.append(f"<text x='{x:.1f}' y='{bottom + 12}' {STYLE} font-size='10' text-anchor='middle'>{tick:g}</text>")
    for i, bar in enumerate(chart.bars):
        parts += _bar(bar, TOP + ROW * i, scale)
    if chart.mark is not None:
        x = scale.place(chart.mark)
        line = f"x1='{x:.1f}' x2='{x:.1f}' y1='{TOP - 6}' y2='{bottom}'"
        parts.append(f"<line {line} stroke='#222' stroke-dasharray='3 3'/>")
    parts.append(f"<text x='12' y='{height - 6}' {STYLE} font-size='10'>{escape(chart.note)}</text>")
    return "\n".join([*parts, "</svg>", ""])


def _legend(series: Sequence[str]) -> str:
    if len(series) < 2:
        return ""
    parts, x = [], LABELS
    for name, color in zip(series, COLORS, strict=False):
        parts.append(f"<rect x='{x}' y='30' width='10' height='10' fill='{color}'/>")
        parts.append(f"<text x='{x + 15}' y='39' {STYLE} font-size='12'>{escape(name)}</text>")
        x += 35 + 7 * len(name)
    return "".join(parts)


def _bar(bar: Bar, y: float, scale: _Scale) -> list[str]:
    parts = [f"<text x='{LABELS - 8}' y='{y + 11}' {STYLE} font-size='12' text-anchor='end'>{escape(bar.label)}</text>"]
    thickness = 2 * BAR / len(bar.values)
    for i, (value, color) in enumerate(zip(bar.values, COLORS, strict=False)):
        if value is not None and value > 0:
            length = scale.place(value) - LABELS
            place = f"x='{LABELS}' y='{y + i * thickness:.1f}' width='{max(length, 1):.1f}' height='{thickness:.1f}'"
            parts.append(f"<rect {place} fill='{color}'/>")
    longest = max((scale.place(value) for value in bar.values if value is not None and value > 0), default=LABELS)
    parts.append(f"<text x='{longest + 6:.1f}' y='{y + 11}' {STYLE} font-size='11'>{escape(bar.words)}</text>")
    return parts


class _Scale:
    def __init__(self, values: Sequence[float], logarithmic: bool) -> None:
        self._logarithmic = logarithmic
        if logarithmic:
            self._low = math.floor(math.log10(min(*values, 1.0)))
            self._high = max(math.log10(max(values)), self._low + 1)
        else:
            self._low, self._high = 0.0, max(values)

    def place(self, value: float) -> float:
        at = math.log10(value) if self._logarithmic else value
        return LABELS + BARS * (at - self._low) / (self._high - self._low)

    def ticks(self) -> list[float]:
        if self._logarithmic:
            return [10.0**i for i in range(math.ceil(self._low), math.floor(self._high) + 1)]
        step = 10 ** math.floor(math.log10(self._high))
        step = step if self._high / step >= 3 else step / 4
        return [i * step for i in range(int(self._high / step) + 1)]


# ---- the charts ------------------------------------------------------------------------------------------


def main_lines(content: dict[str, Any]) -> list[Line]:
    """The last pass of every row, by the first of our backends that ran it."""
    found = []
    for result in content["results"]:
        last = list(result["passes"])[-1]
        found += [line for line in report.lines(result) if line.part == last and line.backend != "reference"][:1]
    return found


def source(content: dict[str, Any]) -> str:
    facts = content["machine"]
    where = facts.get("gpu") or f"{facts['processor']} ({facts['instruction_set']}), {facts['threads']} threads"
    return f"{where}; torch {facts['torch']}; gfl_ops {facts['commit']}, {facts['date']}"


def _label(line: Line) -> str:
    return f"{line.op} {line.shape}" + ("" if line.dtype == "float32" else f" {line.dtype}")


def speedups(content: dict[str, Any]) -> str:
    """Of the large sizes, where there are any; the small ones are a table in docs/performance.md."""
    lines = [line for line in main_lines(content) if line.over_eager is not None]
    bars = [
        Bar(
            _label(line),
            (line.over_eager, line.over_compile),
            f"{line.over_eager:.1f} x" + ("" if line.over_compile is None else f", {line.over_compile:.1f} x"),
        )
        for line in [line for line in lines if line.size != "small"] or lines
    ]
    series = ("over eager PyTorch", "over torch.compile")
    return svg(Chart("How many times faster, loss and gradient", source(content), series, bars, mark=1.0))


def memory(content: dict[str, Any]) -> str:
    bars = []
    for line in main_lines(content):
        if line.op == "gfl_loss" and line.eager_peak_bytes:
            ours, eager = line.peak_bytes / 2**20, line.eager_peak_bytes / 2**20
            bars.append(Bar(_label(line), (ours, eager), f"{ours:,.0f} and {eager:,.0f} MiB"))
    series = ("gfl_ops", "eager PyTorch")
    title = "Memory of the whole loss beyond its inputs, gradients included (MiB)"
    return svg(Chart(title, source(content), series, bars, logarithmic=False))


def roofline(content: dict[str, Any]) -> str:
    """The least: the main input read once and the gradient written once, at the pace of a copy."""
    bars = [
        Bar(_label(line), (line.copies,), f"{line.copies:.1f}")
        for line in main_lines(content)
        if line.copies is not None and line.part == BACKWARD
    ]
    title = "Loss and gradient, in copies of the main input (1 is what memory allows)"
    return svg(Chart(title, source(content), ("time",), bars, mark=1.0, logarithmic=False))


CHARTS = {"speedup": speedups, "memory": memory, "roofline": roofline}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("results", type=Path, nargs="+", help="files of loss_bench.py --json")
    parser.add_argument("--folder", type=Path, default=Path("docs/charts"), help="default: docs/charts")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for path in options.results:
        content = json.loads(path.read_text())
        for name, draw in CHARTS.items():
            target = options.folder / f"{path.stem}-{name}.svg"
            target.write_text(draw(content))
            print(target)


if __name__ == "__main__":
    main()
