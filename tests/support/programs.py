"""Runs programs in processes of their own: those of the benchmarks as a user does, and those of this folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import gfl_ops
from tests import ROOT

BENCHMARKS = ROOT / "benchmarks"
PACKAGE = str(Path(gfl_ops.__file__).parents[1])  # the folder that gfl_ops was imported from


def run_benchmark(name: str, *arguments: str, code: int = 0) -> str:
    """One of benchmarks/, in an environment that has nothing else."""
    environment = {"PYTHONPATH": PACKAGE, "PATH": "/usr/bin:/bin", "HOME": "/nowhere"}
    command = [sys.executable, str(BENCHMARKS / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def support_program(name: str, *arguments: object) -> list[str]:
    """The command of one of tests/support/; it wants environment() as well."""
    return [sys.executable, "-m", f"tests.support.{name}", *map(str, arguments)]


def environment(**variables: str) -> dict[str, str]:
    """Of a process that imports the same gfl_ops as this one, and tests and benchmarks of this clone."""
    paths = [PACKAGE, str(ROOT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))} | variables
