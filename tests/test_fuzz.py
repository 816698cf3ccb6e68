"""No call crashes: see fuzzing.py for what is tried. The same tries each time on the same sources: a new find is for
whoever looks for one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gfl_ops

PROGRAM = Path(__file__).with_name("fuzzing.py")


def fuzz(tries: int, timeout: float, *ops: str) -> None:
    package = str(Path(gfl_ops.__file__).parents[1])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([package, str(PROGRAM.parent), os.environ.get("PYTHONPATH", "")]),
        "PYTHONFAULTHANDLER": "1",  # a crash says where
        "MALLOC_PERTURB_": "165",  # fresh and freed memory holds neither zeros nor what it held before
    }
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tries), *ops, "--seed", "1"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    assert f"{tries} tries" in done.stdout


def test_fuzz(needs_native) -> None:
    fuzz(400, timeout=300)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fuzz_long(needs_native) -> None:
    fuzz(10_000, timeout=3500)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("ops", [("nms", "batched_nms", "nms_padded"), ("postprocess",)], ids=["nms", "postprocess"])
def test_fuzz_detections_long(ops: tuple[str, ...], needs_native) -> None:
    fuzz(10_000, 3500, *ops)
