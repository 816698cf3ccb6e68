"""What commands print: progress bars, tables, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Progress = Callable[[Iterable[Any]], Iterable[Any]]


def progress(text: str, total: int | None = None, *, quiet: bool = False, unit: str = "it") -> Progress:
    """A function that shows a progress bar on stderr while an iterable is used."""

    def wrap(items: Iterable[Any]) -> Iterable[Any]:
        from tqdm import tqdm

        hidden = quiet or not sys.stderr.isatty()
        return tqdm(items, desc=text, total=total, disable=hidden, unit=unit, dynamic_ncols=True, leave=False)

    return wrap


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows as text: the first column left-aligned, the others right-aligned."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    formatted = []
    for line in lines:
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        formatted.append("  ".join(cells).rstrip())
    formatted.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(formatted)


def figure(value: float | int | None, digits: int = 3) -> str:
    """A number as text; "-" for None and for -1, which the evaluator gives where there are no objects."""
    if value is None or value == -1:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.{digits}f}"


def metrics_table(summary: Mapping[str, float], per_class: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        [name, figure(int(row["objects"])), *(figure(row[key]) for key in ("AP", "AP50", "AP75", "AR100"))]
        for name, row in per_class.items()
    ]
    total = sum(int(row["objects"]) for row in per_class.values())
    rows.append(["all", str(total), *(figure(summary[key]) for key in ("AP", "AP50", "AP75", "AR100"))])
    sizes = "  ".join(f"{key} {figure(summary[key])}" for key in ("APs", "APm", "APl"))
    return f"{table(['class', 'objects', 'AP', 'AP50', 'AP75', 'AR100'], rows)}\nby size: {sizes}"


def print_json(content: Any) -> None:
    print(json.dumps(content))
