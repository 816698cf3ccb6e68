"""Runs commands one after the other, each under a time limit, and keeps what is known at any moment in files.

A stage is a process of its own, so that a hang, a crash or a device error in one leaves the others alone. What it
prints goes to its log as it comes, and what it writes into its own result file is taken over while it runs: an
interruption loses nothing that was there.
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
ENDINGS = ((signal.SIGINT, 8.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0))  # and the seconds that each gets
TAIL_LINES = 12  # of a log, that stand in the results as well

PASSED, FAILED, TIMEOUT, SKIPPED, INTERRUPTED = "passed", "failed", "timeout", "skipped", "interrupted"
RUNNING = "running"


@dataclass(frozen=True)
class Stage:
    name: str
    expected: float  # seconds that it is thought to take
    limit: float  # seconds that it may take
    command: Callable[[Path], Sequence[str]]  # from the path for its results, a JSON file that it may write
    least: float = 0.0  # seconds kept for it while the stages before it run
    missing: Callable[[], str] = lambda: ""  # why it cannot run here; empty where it can
    environment: dict[str, str] = field(default_factory=dict)
    unable: tuple[str, ...] = ()  # words of a failure that say: not possible on this machine
    required: bool = False  # without it none of the later ones runs


class Interrupted(Exception):
    pass


class Runner:
    """Stages and what came of them: `stages` in a JSON file that is whole at any time, in the order run, and a log of
    each beside it."""

    def __init__(
        self, path: Path, head: dict[str, Any], total: float, folder: Path | None = None, logs: Path | None = None
    ) -> None:
        """The commands run in `folder`, else in this process' own; logs go to `logs`, else beside the results."""
        self.path, self._folder = path, folder
        self._logs = path.parent if logs is None else logs
        self._logs.mkdir(parents=True, exist_ok=True)
        self.content: dict[str, Any] = {**head, "stages": []}
        self._deadline = time.monotonic() + total
        self._stopped_by = ""
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

    def log_of(self, stage: Stage) -> Path:
        return self._logs / f"{self.path.stem}-{stage.name}.log"

    def _run(self, stage: Stage, result: Path, kept: float) -> str:
        reason = self._stopped_by or stage.missing()
        left = self._deadline - time.monotonic()
        limit = min(stage.limit, max(left - kept, min(stage.least, left)))
        if not reason and limit < 1:
            reason = "no time left"
        record: dict[str, Any] = {"name": stage.name, "state": SKIPPED if reason else RUNNING, "seconds": 0.0}
        record["log"] = None if reason else os.path.relpath(self.log_of(stage), self.path.parent)
        if reason:
            record["reason"] = reason
        self.content["stages"].append(record)
        self._save()
        if reason:
            return f"{SKIPPED}, {reason}"
        start = time.monotonic()
        try:
            self._watch(stage, result, limit, record)
        except (KeyboardInterrupt, Interrupted):
            record["state"] = INTERRUPTED
            raise
        finally:
            record["seconds"] = round(time.monotonic() - start, 1)
            record["tail"] = _tail(self.log_of(stage))
            self._take_over(result, record)
            self._save()
        if stage.required and record["state"] in (FAILED, TIMEOUT):
            last = next((line for line in reversed(record["tail"]) if line.strip()), "")
            self._stopped_by = f"{stage.name} {record['state']}, {record['reason']}: {last.strip()}"
        return f"{record['state']} in {record['seconds']:.0f} s" + (
            f", {record['reason']}" if record.get("reason") else ""
        )

    def _watch(self, stage: Stage, result: Path, limit: float, record: dict[str, Any]) -> None:
        with self.log_of(stage).open("w") as log:
            process = subprocess.Popen(
                [str(word) for word in stage.command(result)],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONUNBUFFERED": "1"} | stage.environment,
                cwd=self._folder,
                start_new_session=True,  # so that what it starts ends with it
                preexec_fn=_heed_interrupts,
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
        if timed_out:
            record |= {"state": TIMEOUT, "reason": f"stopped after {limit:.0f} s"}
        elif process.returncode == 0:
            record["state"] = PASSED
        elif words := next(
            (words for words in stage.unable if words in self.log_of(stage).read_text("utf8", "replace")), ""
        ):
            record |= {"state": SKIPPED, "reason": words}
        else:
            record |= {"state": FAILED, "reason": f"exit code {process.returncode}"}

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


def _heed_interrupts() -> None:
    """A shell's background jobs are started to ignore them, and hand that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _tail(log: Path) -> list[str]:
    try:
        return log.read_text("utf8", "replace").splitlines()[-TAIL_LINES:]
    except OSError:
        return []


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the process and all that it started; at first so that it can still say what it has."""
    for kind, wait in ENDINGS:
        try:
            os.killpg(process.pid, kind)
        except ProcessLookupError:
            return
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            continue
