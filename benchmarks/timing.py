"""What the benchmarks share: calls that take turns, their medians, and the facts about the machine."""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import gfl_ops
from gfl_ops import _native


def in_turns(steps: dict[str, Callable[[int], None]], seconds: float) -> tuple[dict[str, list[float]], int]:
    """Milliseconds of every step, one sample a turn, and the number of turns. A step is given a running number."""
    repeats = {column: calls_per_sample(step) for column, step in steps.items()}
    samples: dict[str, list[float]] = {column: [] for column in steps}
    turn = 0
    start = time.perf_counter()
    while turn < 7 or (time.perf_counter() - start < seconds and turn < 60):
        for place, (column, step) in enumerate(steps.items()):
            begin = time.perf_counter()
            for i in range(repeats[column]):
                step(turn * len(steps) + place + i)
            samples[column].append((time.perf_counter() - begin) / repeats[column] * 1e3)
        turn += 1
    return samples, turn


def calls_per_sample(step: Callable[[int], None]) -> int:
    """A sample lasts ten milliseconds at least, which spreads what its first call pays for cold caches."""
    step(0)  # pays for what other steps left behind
    begin = time.perf_counter()
    step(1)
    return min(1000, math.ceil(1e-2 / max(time.perf_counter() - begin, 1e-7)))


def spread(values: list[float]) -> float:
    """Half the distance between the quartiles, relative to the median."""
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / middle


def summary(samples: dict[str, list[float]], turns: int) -> dict[str, Any]:
    return {
        "turns": turns,
        "ms": {column: statistics.median(values) for column, values in samples.items()},
        "spread": {column: spread(values) for column, values in samples.items()},
    }


def machine() -> dict[str, Any]:
    return {
        "gfl_ops": gfl_ops.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "instruction_set": _native.cpu_isa(),
        "date": time.strftime("%Y-%m-%d"),
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((text.split(":")[1].strip() for text in lines if text.startswith("model name")), platform.processor())
