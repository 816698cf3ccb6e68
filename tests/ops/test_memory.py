"""A loss' step needs memory for the gradient and for nothing else of the prediction's size."""

from __future__ import annotations

import functools
import json
import mmap
import os
import resource
import subprocess
from pathlib import Path

import pytest
import torch

import gfl_ops
from tests.support.programs import environment, support_program

OPS = [
    "quality_focal_loss",
    "quality_focal_loss none",
    "sigmoid_focal_loss",
    "varifocal_loss",
    "soft_bce_loss",
    "distribution_focal_loss",
    "integral",
    "integral of channels-last maps",
    "distribution_kl_loss",
    "distribution_statistics of maps",
    "giou_loss",
    "distribution_box_loss",
]
# Beside the gradient: a value or two per row (targets, losses, boxes), and what a few pages and threads come to.
SLACK = 0.3

pytestmark = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="the kernel does not let a process reset its peak size"
)


def probed(*arguments: str) -> dict[str, dict[str, float]]:
    command = support_program("memory_probe", *arguments)
    variables = environment(MALLOC_MMAP_THRESHOLD_="65536")  # large blocks are mapped one by one, and freed at once
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@functools.cache
def measured(backend: str, dtype: str) -> dict[str, dict[str, float]]:
    """In units of the prediction's bytes."""
    return probed(backend, dtype)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_allocates_the_gradient_alone(dtype: str, op: str, needs_native) -> None:
    step = measured("native", dtype)[op]["step"]
    assert 1 - SLACK <= step <= 1 + SLACK  # the kernel counts resident pages in batches, so both ways are rough


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_forward_without_gradient_allocates_nothing_of_that_size(dtype: str, op: str, needs_native) -> None:
    assert measured("native", dtype)[op]["forward"] <= SLACK


@pytest.mark.parametrize("op", OPS)
def test_the_measure_sees_temporaries(op: str) -> None:
    """The reference makes some, and would fail both tests above."""
    found = measured("reference", "float32")[op]
    assert found["step"] > 2 + SLACK
    assert found["forward"] > 1 + SLACK


def test_the_whole_loss_needs_no_more_for_a_crowd(needs_native) -> None:
    """The gradients of all maps are 22,400 * (80 + 68) floats; a forward alone needs none of them."""
    found = probed("gfl_loss")
    gradients = 22400 * (80 + 68) * 4
    assert found["1000"]["step"] <= 1.05 * found["7"]["step"]
    assert 0.7 * gradients <= found["7"]["step"] <= 1.3 * gradients
    assert found["1000"]["forward"] <= 0.3 * gradients


def huge_pages_on_advice() -> bool:
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return setting.is_file() and "[never]" not in setting.read_text()


@pytest.mark.skipif(not huge_pages_on_advice(), reason="this system has no transparent huge pages")
@pytest.mark.parametrize("formula", [gfl_ops.quality_focal_loss, gfl_ops.sigmoid_focal_loss])
def test_a_large_gradient_does_not_fault_page_by_page(formula, needs_native) -> None:
    """64 MiB, which malloc maps anew each time."""
    rows, classes = 1 << 18, 64
    label = torch.full((rows,), classes)
    target = (label, torch.zeros(rows)) if formula is gfl_ops.quality_focal_loss else label
    pred = torch.zeros(rows, classes, requires_grad=True)
    with gfl_ops.use_backend("native"):
        formula(pred, target).backward()
        pred.grad = None
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        formula(pred, target).backward()
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults < 0.2 * pred.nbytes / mmap.PAGESIZE
