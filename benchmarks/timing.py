"""Calls that take turns, and their medians."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Collection
from typing import Any

import torch

Step = Callable[[int], Any]  # is given a running number
SAMPLE = 1e-2  # seconds that a sample lasts at least, which spreads what its first call pays for cold caches
MOST_TURNS = 60
LEAST_TURNS = 5
LEAST_SLOW_TURNS = 3  # where turns take seconds


def sample(step: Step, first: int, calls: int, device: str = "cpu") -> float:
    """Milliseconds of one call. On a GPU between two events, so that the host's own clock and waiting have no part."""
    if device != "cuda":
        begin = time.perf_counter()
        for i in range(first, first + calls):
            step(i)
        return (time.perf_counter() - begin) / calls * 1e3
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for i in range(first, first + calls):
        step(i)
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / calls


def in_turns(
    steps: dict[str, Step], seconds: float, device: str = "cpu", slow: Collection[str] = ()
) -> dict[str, list[float]]:
    """Milliseconds of every step, one sample a turn: a machine that drifts hits all alike. A sample of a step that is
    known to be slow is one call."""
    calls = {name: 1 if name in slow else calls_per_sample(step, device) for name, step in steps.items()}
    samples: dict[str, list[float]] = {name: [] for name in steps}
    start = time.perf_counter()
    for turn in range(MOST_TURNS):
        passed = time.perf_counter() - start
        if passed > seconds and turn >= (LEAST_TURNS if passed < 4 * seconds else LEAST_SLOW_TURNS):
            break
        for place, (name, step) in enumerate(steps.items()):
            samples[name].append(sample(step, turn * len(steps) + place, calls[name], device))
    return samples


def calls_per_sample(step: Step, device: str = "cpu") -> int:
    milliseconds = sample(step, 0, 1, device)
    if milliseconds < SAMPLE * 1e3:  # or it may have paid for what other steps left behind
        milliseconds = sample(step, 1, 1, device)
    return min(1000, max(1, math.ceil(SAMPLE * 1e3 / max(milliseconds, 1e-4))))


def warm_up(step: Step, calls: int, seconds: float = 0.4) -> bool:
    """Until this is over the allocator asks for fresh pages. True for a step that is slow, which has it over with its
    first call."""
    start = time.perf_counter()
    for i in range(calls):
        if i >= 1 and time.perf_counter() - start > seconds:
            return i == 1
        step(i)
    return False


def median(values: list[float]) -> float:
    return statistics.median(values)


def spread(values: list[float]) -> float:
    """Half the distance between the quartiles, relative to the median."""
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / middle
