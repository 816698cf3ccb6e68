"""An object in a process of its own, which stays while others are measured.

How long the eager formulas take hangs on the heap as much as on the arithmetic: whether malloc keeps the memory of
temporaries or fetches it anew, page by page, depends on all that the process has allocated before, and on what happens
to lie at the heap's end. Processes forked for one row each start from the same heap, whatever rows came before, and
there malloc can be told to keep what it has: that is where the eager formulas are at their best.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import signal
from collections.abc import Callable
from typing import Any

_MOST_KEPT = 1 << 30
_LARGEST_ON_HEAP = 32 << 20  # the most that glibc allows
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_… of malloc.h


class Died(RuntimeError):
    """The process ended without an answer, as it does where the system runs out of memory."""


def is_possible() -> bool:
    return "fork" in multiprocessing.get_all_start_methods()  # not on Windows


class OwnProcess:
    """Calls methods of the object that `make` makes, there. No thread may be computing yet: a fork has none of them."""

    def __init__(self, make: Callable[..., Any], *args: Any, keeps_memory: bool = False) -> None:
        fork = multiprocessing.get_context("fork")
        self._connection, other = fork.Pipe()
        self._process = fork.Process(target=_serve, args=(other, keeps_memory, make, args), daemon=True)
        self._process.start()
        other.close()
        try:
            self._answer()
        except BaseException:
            self.end()
            raise

    def call(self, method: str, *args: Any) -> Any:
        """What the method returns, or raises."""
        try:
            self._connection.send((method, args))
        except OSError:
            raise Died("the process has ended") from None
        return self._answer()

    def end(self) -> None:
        self._connection.close()
        self._process.terminate()
        self._process.join()

    def _answer(self) -> Any:
        try:
            raised, answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            raise Died(f"the process ended with exit code {self._process.exitcode}") from None
        if raised:
            raise answer
        return answer


class SameProcess:
    """The same in this process."""

    def __init__(self, make: Callable[..., Any], *args: Any) -> None:
        self._subject = make(*args)

    def call(self, method: str, *args: Any) -> Any:
        return getattr(self._subject, method)(*args)

    def end(self) -> None:
        self._subject = None


def _serve(
    connection: multiprocessing.connection.Connection,
    keeps_memory: bool,
    make: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the first process decides
    if keeps_memory:
        keep_memory()
    subject: Any = None

    def start() -> None:
        nonlocal subject
        subject = make(*args)

    if not _answer(connection, start):
        return
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        _answer(connection, getattr(subject, method), *arguments)


def _answer(connection: multiprocessing.connection.Connection, function: Callable[..., Any], *args: Any) -> bool:
    """Sends what comes of the call; False where that is an error."""
    raised, answer = False, None
    try:
        answer = function(*args)
    except Exception as error:  # is raised where it was asked for
        raised, answer = True, error
    connection.send((raised, answer))
    return not raised


def prepare_to_compile() -> None:
    """Imports torch.compile once for all, and has it compile in each process itself and not in a pool of its own."""
    import torch._dynamo
    import torch._inductor.compile_fx
    import torch._inductor.config

    torch._inductor.config.compile_threads = 1


def keep_memory() -> None:
    """Where the C library is glibc."""
    with contextlib.suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, _LARGEST_ON_HEAP)
        library.mallopt(_TRIM_THRESHOLD, _MOST_KEPT)


def give_memory_back() -> None:
    """All that is not in use."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
