"""No call crashes: support/fuzzing.py says what is tried. The same tries each time on the same sources: a new find is
for whoever looks for one."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.programs import environment, support_program


def fuzz(tries: int, timeout: float, *ops: str) -> None:
    variables = environment(
        PYTHONFAULTHANDLER="1",  # a crash says where
        MALLOC_PERTURB_="165",  # fresh and freed memory holds neither zeros nor what it held before
    )
    command = support_program("fuzzing", tries, *ops, "--seed", 1)
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=timeout)
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
