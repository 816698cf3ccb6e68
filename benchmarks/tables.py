"""The tables of figures in README and docs, written from committed results.

    python benchmarks/tables.py            rewrites them
    python benchmarks/tables.py --check    fails where one differs from its results

A table stands between `<!-- figures: NAME of FILE -->`, with a file under benchmarks/results/, and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

if not __package__:  # started as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import ROOT
from benchmarks.harness import charts, report, rows
from benchmarks.harness.report import Line

RESULTS = ROOT / "benchmarks" / "results"
PAGES = ("README.md", "docs/performance.md")
# The four rows that README opens with, and what each is in words.
FIRST_SCREEN = {
    ("quality_focal_loss", "44,800x80"): "Quality Focal Loss, 44,800 cells x 80 classes",
    ("distribution_focal_loss", "80,000x17"): "Distribution Focal Loss, 80,000 edges x 17 bins",
    ("gfl_loss", "2x7 gts"): "whole GFL loss, 2 images, 7 objects each",
    ("postprocess", "N(-4,1)"): "post-processing with NMS, 1 image",
}
SPACE = "\u00a0"  # no line break between a figure and its unit
BLOCK = re.compile(r"(<!-- figures: (\w+) of (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def of_text(text: str, read: Callable[[str], dict[str, Any]]) -> str:
    """The page with its tables made anew."""
    return BLOCK.sub(lambda found: found[1] + TABLES[found[2]](read(found[3])) + found[5], text)


def read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / name).read_text())


def table(names: tuple[str, ...], body: list[tuple[str, ...]]) -> str:
    line = "|" + "|".join(["---"] + ["--:"] * (len(names) - 1)) + "|"
    return "\n".join(["| " + " | ".join(names) + " |", line, *("| " + " | ".join(row) + " |" for row in body), ""])


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{_digits(value)}{SPACE}ms"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}x" if value < 100 else f"{value:.0f}x"


def _megabytes(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e6:.{1 if value < 1e8 else 0}f}{SPACE}MB"


def _source(content: dict[str, Any]) -> str:
    return f"\n{charts.source(content)}; `{' '.join(content['command'])}`\n"


def summary(content: dict[str, Any]) -> str:
    """The four rows of README's first screen."""
    lines = {(line.op, line.shape): line for line in charts.main_lines(content)}
    body = [
        (
            words,
            _digits(line.eager_ms),
            _digits(line.compile_ms),
            f"**{_digits(line.ms)}**",
            f"**{_times(line.over_eager)}**",
            f"{_megabytes(line.eager_peak_bytes)} → **{_megabytes(line.peak_bytes)}**",
        )
        for key, words in FIRST_SCREEN.items()
        for line in [lines[key]]
    ]
    names = ("time in ms", "eager", "compile", "gfl_ops", "vs. eager", "memory")
    return table(names, body) + _source(content)


def speed(content: dict[str, Any]) -> str:
    """The large sizes: time, ratios, memory."""
    body = [
        (
            f"`{line.op}` {line.shape}",
            _ms(line.eager_ms),
            _ms(line.compile_ms),
            _ms(line.ms),
            _times(line.over_eager),
            _times(line.over_compile),
            _megabytes(line.eager_peak_bytes),
            _megabytes(line.peak_bytes),
        )
        for line in charts.main_lines(content)
        if line.size != "small" and line.over_eager is not None
    ]
    names = ("", "eager", "compile", "gfl_ops", "over eager", "over compile", "eager's memory", "gfl_ops'")
    return table(names, body) + _source(content)


def small(content: dict[str, Any]) -> str:
    """The small sizes: how many times faster than eager."""
    lines: dict[str, dict[str, Line]] = {}
    for line in charts.main_lines(content):
        if line.size == "small":
            lines.setdefault(line.op, {})[re.split(r"[x ]", line.shape)[0]] = line
    counts = ("8", "64", "512")
    body = [
        (f"`{op}`", *(_times(found[n].over_eager) for n in counts))
        for op, found in lines.items()
        if set(counts) <= set(found)
    ]
    return table(("rows", *counts), body) + _source(content)


def targets(content: dict[str, Any]) -> str:
    """The design's targets beside what was measured."""
    wanted = {(row.op, row.shape): row.targets for row in rows.table()}
    body = []
    for line in charts.main_lines(content):
        words = report.verdicts(line, wanted.get((line.op, line.shape), {})) if line.size != "small" else []
        measured = [_times(line.over_eager), _times(line.over_compile), report.cell(line.copies, 1)]
        if words:
            body.append((f"`{line.op}` {line.shape}", *measured, ", ".join(words)))
    return table(("", "over eager", "over compile", "copies", "target"), body) + _source(content)


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "summary": summary,
    "speed": speed,
    "small": small,
    "targets": targets,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; fail where a table differs")
    options = parser.parse_args()
    stale = []
    for name in PAGES:
        path = ROOT / name
        before = path.read_text()
        after = of_text(before, read)
        if after != before:
            stale.append(name)
            if not options.check:
                path.write_text(after)
    print("\n".join(f"{name}: {'differs' if options.check else 'written'}" for name in stale) or "all as they are")
    sys.exit(bool(stale) and options.check)


if __name__ == "__main__":
    main()
