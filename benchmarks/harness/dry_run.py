"""Stages that only take their time: what gpu_check does with time, failures and hangs, without a GPU."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.stages import Stage

FAILING, HANGING = "failing", "hanging"  # added behind the second stage
EXIT_CODE = 3

# A line on the way, a result half way through, a line at the end.
_CODE = """
import sys, time
name, seconds, result, code = sys.argv[1], float(sys.argv[2]), sys.argv[3], int(sys.argv[4])
print(f"{name} begins", flush=True)
time.sleep(seconds / 2)
with open(result, "w") as file:
    file.write(sys.argv[5])
time.sleep(seconds / 2)
print(f"{name} ends", flush=True)
sys.exit(code)
"""


def table(stages: Sequence[Stage], speed: float) -> list[Stage]:
    """The same names, times and limits, in the same order, so many times faster."""
    found = [_fake(stage, stage.expected, speed) for stage in stages]
    failing = Stage(FAILING, 10, 30, lambda result: [], least=10)
    hanging = Stage(HANGING, 10, 30, lambda result: [], least=10)
    extra = [_fake(failing, 10, speed, EXIT_CODE), _fake(hanging, 24 * 3600, speed)]
    return [*found[:2], *extra, *found[2:]]


def _fake(stage: Stage, seconds: float, speed: float, code: int = 0) -> Stage:
    def command(result: Path) -> list[str]:
        words = [stage.name, str(seconds / speed), str(result), str(code), json.dumps({"of": stage.name})]
        return [sys.executable, "-I", "-S", "-c", _CODE, *words]

    return dataclasses.replace(
        stage,
        expected=seconds / speed,
        limit=stage.limit / speed,
        least=stage.least / speed,
        command=command,
        missing=lambda: "",
        environment={},
        unable=(),
    )
