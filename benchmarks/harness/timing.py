"""Calls that take turns, and the figures that are made of their times."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

Step = Callable[[int], Any]  # is given a running number
SLICE = 1e-2  # seconds that a step's turn lasts at least
SAMPLE = {"cpu": 1e-3, "cuda": 1e-2}  # and a sample of it; a GPU is waited for at each one's end
LEAST_TURNS = 5
LEAST_SLOW_TURNS = 3  # where turns take seconds
WARM_UP = {True: 0.2, False: 0.05}  # seconds at most, for the first time and from then on


class Turns:
    """Steps take turns, a slice of time each, in as many stretches as they are asked for: what slows a machine down for
    a moment or for a minute hits all alike."""

    def __init__(self, device: str = "cpu") -> None:
        self.samples: dict[str, list[float]] = {}  # milliseconds of one call
        self._device = device
        self._calls: dict[str, int] = {}  # in a sample
        self._slow: set[str] = set()
        self._number = 0
        self._turns = 0
        self._spent = 0.0

    def are_due(self, seconds: float, share: float = 1.0) -> bool:
        """Until the turns have taken that share of so many seconds, and are that share of the least number."""
        least = LEAST_TURNS if self._spent <= 4 * seconds else LEAST_SLOW_TURNS
        return self._spent < share * seconds or self._turns < share * least

    def run(self, steps: Mapping[str, Step], seconds: float, share: float = 1.0, warm_up: int = 3) -> None:
        for name, step in steps.items():
            self._prepare(name, step, warm_up)
        while self.are_due(seconds, share):
            start = time.perf_counter()
            for name, step in steps.items():
                self._take(name, step)
            self._turns += 1
            self._spent += time.perf_counter() - start

    def _prepare(self, name: str, step: Step, calls: int) -> None:
        """Until this is over the allocator asks for fresh pages. A slow step has it over with its very first call."""
        first = name not in self._calls
        start = time.perf_counter()
        for i in range(0 if name in self._slow else calls):
            passed = time.perf_counter() - start
            if i and passed > WARM_UP[first]:
                break
            step(self._next())
        if first:
            # On a GPU a first call may be slow by what it loads and tries out.
            if i == 1 and passed > WARM_UP[first] and self._device != "cuda":
                self._slow.add(name)
            self._calls[name] = 1 if name in self._slow else self._calls_of_a_sample(step)

    def _calls_of_a_sample(self, step: Step) -> int:
        milliseconds = min(self._sample(step, 1), self._sample(step, 1))
        return min(1000, max(1, math.ceil(SAMPLE[self._device] * 1e3 / max(milliseconds, 1e-4))))

    def _take(self, name: str, step: Step) -> None:
        end = time.perf_counter() + SLICE
        samples = self.samples.setdefault(name, [])
        samples.append(self._sample(step, self._calls[name]))
        while time.perf_counter() < end:
            samples.append(self._sample(step, self._calls[name]))

    def _sample(self, step: Step, calls: int) -> float:
        """Milliseconds of one call. On a GPU between two events: the host's own clock and waiting have no part."""
        if self._device != "cuda":
            begin = time.perf_counter()
            for _ in range(calls):
                step(self._next())
            return (time.perf_counter() - begin) / calls * 1e3
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        for _ in range(calls):
            step(self._next())
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / calls

    def _next(self) -> int:
        self._number += 1
        return self._number


def figures(samples: list[float]) -> dict[str, float]:
    """What a call takes where nothing else holds the machine up, and what all samples say.

    `ms` is the median of the fastest quarter. On a machine that others share, the median of all says how busy those
    were: it differs from run to run by what the machine does, and not in the same measure for all formulas.
    """
    fastest = sorted(samples)[: math.ceil(len(samples) / 4)]
    return {"ms": statistics.median(fastest), "median_ms": statistics.median(samples), "spread": spread(samples)}


def spread(samples: list[float]) -> float:
    """Half the distance between the quartiles, relative to the median."""
    if len(samples) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(samples, n=4)
    return (high - low) / 2 / middle
