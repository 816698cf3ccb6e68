"""A call in a process of its own.

How long the eager formulas take hangs on the heap as much as on the arithmetic: whether malloc keeps the memory of
temporaries or fetches it anew, page by page, depends on all that the process has allocated before. A process forked
for each row starts each from the same heap, whatever rows came before it, and takes its memory along when it ends.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

Died = BrokenProcessPool  # the process ended without an answer, as it does where the system runs out of memory

_kept: Callable[[], Any]


def call(function: Callable[..., Any], *args: Any) -> Any:
    """The function's result, or what it raises. No thread may be computing yet: a fork would have none of them."""
    if "fork" not in multiprocessing.get_all_start_methods():  # Windows
        return function(*args)
    # Forked, the process has function and arguments already, which need not be such as can be sent.
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, fork, initializer=_keep, initargs=(lambda: function(*args),)) as processes:
        return processes.submit(_call_kept).result()


def prepare_to_compile() -> None:
    """Imports torch.compile once for all, and has it compile in each process itself and not in a pool of its own."""
    import torch._dynamo
    import torch._inductor.compile_fx
    import torch._inductor.config

    torch._inductor.config.compile_threads = 1


def _keep(function: Callable[[], Any]) -> None:
    global _kept
    _kept = function


def _call_kept() -> Any:
    return _kept()
