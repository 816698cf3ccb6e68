"""Rows measured in rounds, a stretch of time each in every round.

A machine that others share has slow seconds and slow minutes. A row that is measured in one stretch has the luck of its
seconds; in rounds through the whole run every row has its share of all of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import own_process
from benchmarks.harness.progress_bar import Progress
from benchmarks.harness.rows import Row

BYTES_OF_A_ROW = 512 << 20  # that its process holds between its turns


def rows_at_once() -> int:
    """As many as memory has space for; the others follow when those are done."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        available = 4 << 30
    return max(4, available // BYTES_OF_A_ROW)


@dataclass(frozen=True, eq=False)
class Task:
    row: Row
    dtype: str

    @property
    def name(self) -> str:
        return f"{self.row.name} {self.dtype}"


Subject = own_process.OwnProcess | own_process.SameProcess


class Rounds:
    """Measures tasks: `make` begins one with a Measurement, in this process or its own, or leaves it out with None."""

    def __init__(self, tasks: list[Task], make: Callable[[Task], Subject | None], rounds: int, at_once: int) -> None:
        self.failed: list[str] = []
        self.interrupted = False
        self._tasks, self._make, self._rounds, self._at_once = tasks, make, rounds, at_once
        self._bar = Progress(len(tasks) * (rounds + 1))

    def results(self) -> Iterator[tuple[Task, dict[str, Any]]]:
        """After an interruption those of what was measured until then."""
        for first in range(0, len(self._tasks), self._at_once):
            subjects: dict[Task, Subject] = {}
            try:
                self._begin(self._tasks[first : first + self._at_once], subjects)
                for turn in range(self._rounds):
                    self._turn(subjects, (turn + 1) / self._rounds)
            except KeyboardInterrupt:
                self.interrupted = True
            for task, subject in subjects.items():
                with self._failing(task):
                    if subject.call("is_measured"):
                        yield task, subject.call("result")
                subject.end()
            if self.interrupted:
                return

    def _begin(self, tasks: list[Task], subjects: dict[Task, Subject]) -> None:
        for task in tasks:
            self._bar.start(f"checking {task.name}")
            with self._failing(task):
                subject = self._make(task)
                if subject is not None:
                    subjects[task] = subject
            self._bar.finish()

    def _turn(self, subjects: dict[Task, Subject], share: float) -> None:
        for task, subject in list(subjects.items()):
            self._bar.start(task.name)
            done = False
            try:
                with self._failing(task):
                    subject.call("turn", share)
                    done = True
            finally:
                if not done:  # nor does one that was interrupted have an answer to the next question
                    subjects.pop(task).end()
            self._bar.finish()

    @contextlib.contextmanager
    def _failing(self, task: Task) -> Iterator[None]:
        """A task that fails, in whatever way, is one row less."""
        try:
            yield
        except Exception as error:
            words = str(error).splitlines() or [""]
            self.failed.append(f"{task.name}: {type(error).__name__}: {words[0]}")
