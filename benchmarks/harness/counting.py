"""What can be counted of a call rather than timed: memory, kernel launches, waits of the host.

All of it comes from torch's profiler, so it is the same on every machine and in every run.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import profiler
from torch.autograd import DeviceType

LAUNCHES = (
    *("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaLaunchCooperativeKernel"),
    *("cudaMemcpyAsync", "cudaMemsetAsync", "cudaGraphLaunch"),
)
_WAITS = re.compile("(cuda|cu[A-Z]).*Synchronize|cudaMemcpy|cudaFree")
_RANGE = "gfl_ops counted call"


@dataclass(frozen=True)
class Memory:
    """Blocks that torch's allocator gave out during a call."""

    peak: int  # bytes beyond those at the start
    blocks: tuple[int, ...]  # their sizes, in order


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Some builds of the profiler write lines of their own to the error stream, from C++."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def memory(run: Callable[[], Any]) -> Memory:
    """The allocations of one call on the CPU; what the call leaves behind counts as well."""
    cpu = [profiler.ProfilerActivity.CPU]
    with _silent(), profiler.profile(activities=cpu, profile_memory=True) as profile:
        run()
    events = [
        event
        for event in profile.profiler.kineto_results.events()
        if event.name() == "[memory]" and event.device_type() == DeviceType.CPU
    ]
    events.sort(key=lambda event: event.start_ns())
    return memory_of([event.nbytes() for event in events])


def peak_bytes(run: Callable[[], Any], device: str) -> int:
    """How far the memory given out rises above where it was, during one call."""
    if device != "cuda":
        return memory(run).peak
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return torch.cuda.max_memory_allocated() - before


def memory_of(changes: Iterable[int]) -> Memory:
    """From allocations (positive) and releases (negative) in order."""
    current = peak = 0
    blocks = []
    for change in changes:
        current += change
        peak = max(peak, current)
        if change > 0:
            blocks.append(change)
    return Memory(peak, tuple(blocks))


@dataclass(frozen=True)
class Calls:
    launches: int  # of kernels, copies and fills
    syncs: int  # the host waited for the device


def cuda_calls(run: Callable[[], Any]) -> Calls:
    """Of one call, once warm."""
    activities = [profiler.ProfilerActivity.CPU, profiler.ProfilerActivity.CUDA]
    torch.cuda.synchronize()
    with _silent(), profiler.profile(activities=activities) as profile:
        with profiler.record_function(_RANGE):
            run()
        torch.cuda.synchronize()
    events = profile.events()
    inside = next(event.time_range for event in events if event.name == _RANGE)
    return calls_of(
        event.name
        for event in events
        if event.device_type == DeviceType.CPU and inside.start <= event.time_range.start <= inside.end
    )


def calls_of(names: Iterable[str]) -> Calls:
    """From the names of the runtime's functions that were called."""
    launches = syncs = 0
    for name in names:
        launches += name in LAUNCHES
        syncs += _WAITS.fullmatch(name) is not None
    return Calls(launches, syncs)
