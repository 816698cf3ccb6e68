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

_WAITS = re.compile("(cuda|cu[A-Z]).*Synchronize|cudaMemcpy|cudaFree")
_RANGE = "gfl_ops counted call"
_NO_WORK = ("Context Sync", "Event Sync", "Stream Sync", "Stream Wait Event")  # among what the device records


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


class NothingLaunched(RuntimeError):
    """What the profiler saw is not what ran: a count of 0 would meet any target."""


@dataclass(frozen=True)
class Profile:
    """What a call did on a GPU."""

    on_device: tuple[tuple[str, float], ...]  # kernels, copies and fills in order, each with its microseconds
    on_host: tuple[str, ...]  # calls of CUDA's runtime and driver, and of torch's operators

    @property
    def launches(self) -> int:
        return len(self.on_device)

    @property
    def syncs(self) -> int:
        """How often the host waited for the device."""
        return sum(_WAITS.fullmatch(name) is not None for name in self.on_host)

    @property
    def milliseconds(self) -> float:
        """Of the device's work alone, without the gaps in which it waits for the next launch."""
        return sum(microseconds for _, microseconds in self.on_device) / 1e3


def cuda_profile(run: Callable[[], Any]) -> Profile:
    """Of one call, once warm."""
    activities = [profiler.ProfilerActivity.CPU, profiler.ProfilerActivity.CUDA]
    torch.cuda.synchronize()
    with _silent(), profiler.profile(activities=activities) as profile:
        with profiler.record_function(_RANGE):
            run()
        torch.cuda.synchronize()
    return profile_of(profile.profiler.kineto_results.events())


def profile_of(events: Iterable[Any]) -> Profile:
    """Launches are counted where they run, by the device's own record: a program may launch by functions that this
    torch's profiler has no name for, and it leaves those out."""
    events = sorted(events, key=lambda event: event.start_ns())
    call = next(event for event in events if event.name() == _RANGE and event.device_type() == DeviceType.CPU)
    end = call.start_ns() + call.duration_ns()
    on_device = tuple(
        (event.name(), event.duration_ns() / 1e3)
        for event in events
        if event.device_type() == DeviceType.CUDA and event.name() != _RANGE and event.name() not in _NO_WORK
    )
    if not on_device:
        raise NothingLaunched("the profiler saw no kernel, copy or fill on the device")
    on_host = tuple(
        event.name()
        for event in events
        if event.device_type() == DeviceType.CPU and call.start_ns() <= event.start_ns() <= end
    )
    return Profile(on_device, on_host)
