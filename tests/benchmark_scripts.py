"""Runs the scripts under benchmarks/ as a user does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gfl_ops

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def run_script(name: str, *arguments: str, code: int = 0) -> str:
    environment = {"PYTHONPATH": str(Path(gfl_ops.__file__).parents[1]), "PATH": "/usr/bin:/bin", "HOME": "/nowhere"}
    command = [sys.executable, str(BENCHMARKS / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr
