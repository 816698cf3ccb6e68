"""Runs commands one after the other, each under a time limit, and keeps what is known at any moment in one file.

A stage is a process of its own, so that a hang, a crash or a device error in one leaves the others alone. What a stage
writes into its own result file is taken over while it runs: an interruption loses nothing that was there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import json_file

TICK = 2.0  # seconds between looks at a running stage's results
GRACE = 5.0  # seconds between asking a process to end and ending it
TAIL = 6000  # characters of output that are kept

PASSED, FAILED, TIMEOUT, SKIPPED, INTERRUPTED = "passed", "failed", "timeout", "skipped", "interrupted"


@dataclass(frozen=True)
class Stage:
    name: str
    limit: float  # seconds
    command: Callable[[Path], Sequence[str]]  # from the path for its results, a JSON file that it may write
    least: float = 0.0  # seconds kept for it while the stages before it run
    missing: Callable[[], str] = lambda: ""  # why it cannot run here; empty where it can
    environment: dict[str, str] = field(default_factory=dict)
    unable: tuple[str, ...] = ()  # words of a failure that say: not possible on this machine


class Interrupted(Exception):
    pass


class Runner:
    """Stages and what came of them, in a file that is whole at any time."""

    def __init__(self, path: Path, head: dict[str, Any], total: float, folder: Path | None = None) -> None:
        """The commands run in the folder; without one, in this process' own."""
        self.path, self._folder = path, folder
        self.content: dict[str, Any] = {**head, "stages": {}}
        self._deadline = time.monotonic() + total
        self._save()

    def run(self, stages: Sequence[Stage], say: Callable[[str], None] = print) -> None:
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            with tempfile.TemporaryDirectory() as folder:
                for i, stage in enumerate(stages):
                    kept = sum(later.least for later in stages[i + 1 :] if not later.missing())
                    say(f"{stage.name}: {self._run(stage, Path(folder) / f'{stage.name}.json', kept)}")
        except (KeyboardInterrupt, Interrupted):
            say("interrupted")
        finally:
            signal.signal(signal.SIGTERM, before)
            self._save()

    def _run(self, stage: Stage, result: Path, kept: float) -> str:
        reason = stage.missing()
        left = self._deadline - time.monotonic()
        limit = min(stage.limit, max(left - kept, min(stage.least, left)))
        if not reason and limit < 1:
            reason = "no time left"
        record: dict[str, Any] = {"status": SKIPPED, "reason": reason} if reason else {"status": "running"}
        self.content["stages"][stage.name] = record
        self._save()
        if reason:
            return f"{SKIPPED}, {reason}"
        start = time.monotonic()
        try:
            self._watch(stage, result, limit, record)
        except (KeyboardInterrupt, Interrupted):
            record["status"] = INTERRUPTED
            raise
        finally:
            record["seconds"] = round(time.monotonic() - start, 1)
            self._take_over(result, record)
            self._save()
        return f"{record['status']} in {record['seconds']:.0f} s" + (
            f", {record['reason']}" if record.get("reason") else ""
        )

    def _watch(self, stage: Stage, result: Path, limit: float, record: dict[str, Any]) -> None:
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            process = subprocess.Popen(
                [str(word) for word in stage.command(result)],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=os.environ | stage.environment,
                cwd=self._folder,
                start_new_session=True,  # so that what it starts ends with it
            )
            end = time.monotonic() + limit
            try:
                while process.poll() is None and time.monotonic() < end:
                    try:
                        process.wait(min(TICK, max(0.01, end - time.monotonic())))
                    except subprocess.TimeoutExpired:
                        if self._take_over(result, record):
                            self._save()
                timed_out = process.poll() is None
            finally:
                _end(process)
                output.seek(0)
                record["output"] = output.read()[-TAIL:]
        if timed_out:
            record |= {"status": TIMEOUT, "reason": f"stopped after {limit:.0f} s"}
        elif process.returncode == 0:
            record["status"] = PASSED
        elif words := next((words for words in stage.unable if words in record["output"]), ""):
            record |= {"status": SKIPPED, "reason": words}
        else:
            record |= {"status": FAILED, "reason": f"exit code {process.returncode}"}

    @staticmethod
    def _take_over(result: Path, record: dict[str, Any]) -> bool:
        """True where there is something new."""
        try:
            found = json.loads(result.read_text())
        except (OSError, ValueError):  # not there yet, or half written
            return False
        changed = found != record.get("result")
        record["result"] = found
        return changed

    def _save(self) -> None:
        json_file.write_json(self.path, self.content)


def _interrupt(number: int, frame: object) -> None:
    raise Interrupted


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the process and all that it started."""
    for kind, wait in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        try:
            os.killpg(process.pid, kind)
        except ProcessLookupError:
            return
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            continue
