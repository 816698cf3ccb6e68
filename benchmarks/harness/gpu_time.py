"""What a step takes a GPU, whatever the host needs to launch it."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.harness import counting, cuda_graph
from benchmarks.harness.timing import Step

STEPS = 16  # of a graph: the gap between two replays is shared by so many
HOST_CALLS = 10  # in a row, few enough that the queue of launches is never full
REPEATS = 5


def replay(step: Step, num_inputs: int) -> Step | None:
    """STEPS steps as one graph, each on the next of so many inputs; None where a step cannot be captured.

    A result is kept until its input comes again: each step writes where the caches hold nothing.
    """
    if cuda_graph.wait_of(lambda: step(0)):
        return None

    def steps() -> deque[Any]:
        results: deque[Any] = deque(maxlen=num_inputs)
        for i in range(STEPS):
            results.append(step(i))
        return results

    try:
        graph, results = cuda_graph.captured(steps, warm_ups=1)
    except RuntimeError:
        return None

    # What the graph reads and writes must live as long as it: the incoming gradients, which the step has, and the
    # results.
    def again(_: int, kept: tuple[Step, deque[Any]] = (step, results)) -> None:
        graph.replay()

    return again


def of_kernels(run: Callable[[], Any]) -> float:
    """Milliseconds of a call's kernels, copies and fills, added up: less than it takes, by the gaps between them."""

    def repeatedly() -> None:
        for _ in range(REPEATS):
            run()

    return counting.cuda_profile(repeatedly).milliseconds / REPEATS


def of_host(run: Callable[[], Any]) -> float:
    """Milliseconds until a call returns, the device's work still in its queue."""
    samples = []
    for _ in range(REPEATS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(HOST_CALLS):
            run()
        samples.append((time.perf_counter() - start) / HOST_CALLS * 1e3)
    torch.cuda.synchronize()
    return statistics.median(samples)
