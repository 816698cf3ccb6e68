"""Steps in CUDA graphs, and calls in which the host may not wait: shared with the tests that need a GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

WARM_UPS = 3


@contextlib.contextmanager
def no_host_sync() -> Iterator[None]:
    """Whatever waits for the device raises."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def wait_of(run: Callable[[], Any]) -> str:
    """The error of the first wait in a call, once warm; empty where there is none."""
    run()  # the first call may build and load what later ones find
    torch.cuda.synchronize()
    try:
        with no_host_sync():
            run()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return ""


def captured(step: Callable[[], Any], warm_ups: int = WARM_UPS) -> tuple[torch.cuda.CUDAGraph, Any]:
    """A graph of one step, and the outputs that each replay writes anew."""
    before = torch.cuda.current_stream()
    side = torch.cuda.Stream()
    side.wait_stream(before)
    with torch.cuda.stream(side):
        for _ in range(warm_ups):
            step()
    before.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(before), torch.cuda.graph(graph):  # a capture that fails leaves its stream the current one
        outputs = step()
    return graph, outputs
