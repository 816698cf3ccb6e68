"""The CUDA kernels on the host under the sanitizers, and what the shim promises about them.

Their values are checked elsewhere: the whole suite runs over them as the `host_cuda` backend.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import gfl_ops
from tests.support import c_abi, host_cuda

# Sixteen byte loads, shared memory and shuffles are in all of these; generalized_focal_loss and scale have no barrier
# but that of the sum.
OPS_WITH_BARRIERS = [
    *("class_loss", "distribution_focal_loss", "integral", "distribution_statistics"),
    *("distribution_kl_loss", "iou", "distribution_box_loss"),
    *(
        "atss_assign",
        "task_aligned_assign",
        "max_iou_assign",
        "fcos_assign",
        "cost_assign",
        "multilevel_class_loss",
        "positives",
    ),
    *("nms", "postprocess"),
    "large",
]
OPS = [*OPS_WITH_BARRIERS, "generalized_focal_loss", "scale", "dividers", "rough_steps", "brief_terms"]
LONG = ("postprocess", "cost_assign")  # nine launches a case; a block that searches for each ground truth


def needs_sanitizer(name: str, folder: Path) -> None:
    source = folder / "probe.cpp"
    source.write_text("int main() { return 0; }\n")
    command = [host_cuda.compiler(), f"-fsanitize={name}", str(source), "-o", str(folder / "probe")]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip(f"the compiler has no runtime for -fsanitize={name}")


def drive(driver: Path, op: str, cases: int) -> None:
    environment = os.environ | {
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "TSAN_OPTIONS": "halt_on_error=1",
    }
    command = [str(driver), op, str(cases)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if "unexpected memory mapping" in done.stderr:  # ThreadSanitizer against a kernel that scatters addresses widely
        if shutil.which("setarch") is None:
            pytest.skip("ThreadSanitizer does not run here: unexpected memory mapping")
        done = subprocess.run(["setarch", "-R", *command], capture_output=True, text=True, env=environment)
        if "unexpected memory mapping" in done.stderr or "Operation not permitted" in done.stderr:
            pytest.skip("ThreadSanitizer does not run here: unexpected memory mapping")
    assert done.returncode == 0, done.stderr[-6000:]
    assert done.stdout.endswith(" cases\n")


@pytest.mark.parametrize("op", OPS)
def test_kernels_under_address_and_undefined_behavior_sanitizer(op: str, tmp_path: Path) -> None:
    needs_sanitizer("address,undefined", tmp_path)
    drive(host_cuda.build("address"), op, 40 if op in LONG else 200)


@pytest.mark.parametrize("op", OPS_WITH_BARRIERS)
def test_kernels_under_thread_sanitizer(op: str, tmp_path: Path) -> None:
    needs_sanitizer("thread", tmp_path)
    drive(host_cuda.build("thread"), op, 1 if op in LONG else 5)


def test_route_runs_the_cuda_kernels() -> None:
    core = host_cuda.module()
    assert core.has_cuda()
    assert core.cuda_architectures() == "host"
    before = host_cuda.launches()
    with host_cuda.route():
        gfl_ops.quality_focal_loss(torch.zeros(3, 4), torch.zeros(3, 4))
    assert host_cuda.launches() > before


def _use_device(index: int) -> None:
    data, factor = torch.ones(4), torch.full((), 2.0)
    device = c_abi.Device(c_abi.CUDA, index, None)
    assert c_abi.scale_gradient(host_cuda.shim(), device, data.data_ptr(), 4, factor.data_ptr()) == 0
    assert torch.equal(data, torch.full((4,), 2.0))


@pytest.fixture
def fresh_devices() -> Iterator[None]:
    host_cuda.shim().gfl_shim_forget_devices()
    yield
    host_cuda.shim().gfl_shim_forget_devices()


def test_a_call_makes_no_context_on_another_device(fresh_devices: None) -> None:
    _use_device(1)
    assert host_cuda.shim().gfl_shim_contexts() == 0b10


def test_a_call_leaves_the_device_that_was_current(fresh_devices: None) -> None:
    _use_device(0)
    _use_device(1)
    assert host_cuda.shim().gfl_shim_contexts() == 0b11
    assert host_cuda.shim().gfl_shim_current_device() == 0


def test_a_missing_device_is_an_error_with_words() -> None:
    data, factor = torch.ones(4), torch.full((), 2.0)
    library = host_cuda.shim()
    library.gfl_last_error.restype = ctypes.c_char_p
    status = c_abi.scale_gradient(library, c_abi.Device(c_abi.CUDA, 3, None), data.data_ptr(), 4, factor.data_ptr())
    assert status == c_abi.ERROR_CUDA
    assert b"CUDA device 3: cudaSetDevice: invalid device ordinal" in library.gfl_last_error()
    assert torch.equal(data, torch.ones(4))


def _distribution_focal_loss(bins: int, dtype: torch.dtype) -> None:
    logits = torch.zeros(3, bins, dtype=dtype, requires_grad=True)
    gfl_ops.distribution_focal_loss(logits, torch.ones(3, dtype=dtype), reduction="sum").backward()


def _integral(bins: int, dtype: torch.dtype) -> None:
    gfl_ops.integral(torch.zeros(1, 4 * bins, dtype=dtype, requires_grad=True), num_bins=bins).sum().backward()


def _distribution_kl_loss(bins: int, dtype: torch.dtype) -> None:
    logits = torch.zeros(3, bins, dtype=dtype, requires_grad=True)
    gfl_ops.distribution_kl_loss(logits, torch.ones(3, bins)).backward()


def _distribution_statistics(bins: int, dtype: torch.dtype) -> None:
    """Of all bins: what a thread keeps of its row besides is the more the more ranks there are."""
    logits = torch.zeros(1, 4 * bins, dtype=dtype, requires_grad=True)
    gfl_ops.distribution_statistics(logits, bins).sum().backward()


def _distribution_box_loss(bins: int, dtype: torch.dtype) -> None:
    logits = torch.zeros(1, 4 * bins, dtype=dtype, requires_grad=True)
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0]], dtype=dtype)
    losses = gfl_ops.distribution_box_loss(logits, torch.ones(1, 2, dtype=dtype), boxes)
    (losses.loss_iou + losses.loss_dfl).backward()


def _gfl_loss(bins: int, dtype: torch.dtype) -> None:
    scores = torch.zeros(1, 1, 4, 4, dtype=dtype)
    edges = torch.zeros(1, 4 * bins, 4, 4, dtype=dtype, requires_grad=True)
    box = {"boxes": torch.tensor([[0.0, 0.0, 24.0, 24.0]]), "labels": torch.zeros(1, dtype=torch.int64)}
    losses = gfl_ops.gfl_loss([scores], [edges], [box], strides=[8])
    assert losses["num_pos"] > 0  # or nothing is summed
    (losses["loss_bbox"] + losses["loss_dfl"]).backward()


def _postprocess(bins: int, dtype: torch.dtype) -> None:
    maps = torch.zeros(1, 1, 2, 2, dtype=dtype), torch.zeros(1, 4 * bins, 2, 2, dtype=dtype)
    gfl_ops.postprocess([maps[0]], [maps[1]], [8], [(16, 16)], max_per_img=2, with_edges=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=str)  # float16 is computed as float32 is
@pytest.mark.parametrize(
    "op",
    [
        *(_distribution_focal_loss, _distribution_kl_loss, _integral, _distribution_statistics),
        *(_distribution_box_loss, _gfl_loss, _postprocess),
    ],
    ids=lambda op: op.__name__,
)
def test_every_number_of_bins_fits_into_shared_memory(
    op: Callable[[int, torch.dtype], None], dtype: torch.dtype
) -> None:
    """A tile of rows takes nearly all that a block has; a launch that asks for more fails, here as on a GPU."""
    too_large = []
    with host_cuda.route():
        for bins in range(2, 257):
            try:
                op(bins, dtype)
            except RuntimeError as error:
                assert "kernel launch: invalid argument" in str(error)
                too_large.append(bins)
    assert too_large == []


def test_the_launch_helper_is_the_only_place_with_a_launch() -> None:
    folder = host_cuda.ROOT / "csrc"
    places = {path.relative_to(folder) for path in folder.rglob("*.*") if "<<<" in path.read_text()}
    assert places == {Path("cuda/launch.h")}
