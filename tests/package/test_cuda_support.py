"""Which GPUs the compiled kernels are taken to run on, and what runs instead."""

from __future__ import annotations

import pytest
import torch

from gfl_ops import _dispatch, _native
from gfl_ops._cuda_support import cuda_support_problem

USUAL = "sm_80 sm_90 compute_80"


@pytest.mark.parametrize(
    ("architectures", "capability", "runs"),
    [
        ("sm_80", (8, 0), True),
        ("sm_80", (8, 6), True),  # machine code runs within its major version,
        ("sm_86", (8, 0), False),  # from its minor one on
        ("sm_80", (9, 0), False),
        ("sm_90", (10, 0), False),
        ("sm_80 sm_90", (12, 0), False),
        ("compute_80", (8, 0), True),  # what is compiled when it is loaded runs on all that came later
        ("compute_80", (12, 0), True),
        ("compute_90", (8, 0), False),
        (USUAL, (10, 0), True),
        ("sm_90a", (9, 0), True),  # an "a" is for one GPU alone
        ("sm_100a compute_100a", (10, 3), False),
        ("compute_90a", (10, 0), False),
        ("sm_100f compute_100f", (10, 3), True),  # an "f" for its major version
        ("compute_100f", (12, 0), False),
    ],
)
def test_what_was_compiled_for_one_gpu_runs_on_another(
    architectures: str, capability: tuple[int, int], runs: bool
) -> None:
    major, minor = capability
    problem = cuda_support_problem(architectures, capability, 13000, 13000)
    assert problem == (
        "" if runs else f"this GPU is sm_{major}{minor}, and the native core was built for {architectures}"
    )


@pytest.mark.parametrize(
    ("driver", "runtime", "capability", "words"),
    [
        (13000, 13000, (9, 0), ""),
        (13020, 13000, (9, 0), ""),
        (13000, 13020, (9, 0), ""),  # a driver loads the machine code of its whole major version
        (13000, 13020, (10, 0), "a driver for CUDA 13.0 cannot compile what CUDA 13.2 made"),
        (12080, 13000, (9, 0), "the driver is for CUDA 12.8, and the native core was built with CUDA 13.0"),
        (12080, 11080, (9, 0), ""),
        (0, 13000, (9, 0), ""),  # there is no driver to ask
    ],
)
def test_what_a_driver_can_load(driver: int, runtime: int, capability: tuple[int, int], words: str) -> None:
    problem = cuda_support_problem(USUAL, capability, driver, runtime)
    assert words in problem and bool(words) == bool(problem)


def test_another_backend_runs_where_the_driver_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver is asked once, and the reason is what `python -m gfl_ops.info` prints."""
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(_native, "has_cuda", lambda: True)
    monkeypatch.setattr(_native, "cuda_architectures", lambda: USUAL)
    monkeypatch.setattr(_native, "cuda_versions", lambda: asked.append(1) or (12080, 13000))
    monkeypatch.setattr(_dispatch, "_missing_triton", lambda: "")
    _dispatch._gpu_problem.cache_clear()
    try:
        choices = [_dispatch.choose(op, "cuda") for op in ("integral", "nms")]
    finally:
        _dispatch._gpu_problem.cache_clear()
    words = "the driver is for CUDA 12.8, and the native core was built with CUDA 13.0"
    assert choices == [("triton", words), ("reference", words)]
    assert len(asked) == 1


def test_versions_of_cuda_are_numbers() -> None:
    driver, runtime = _native.cuda_versions()
    assert driver >= 0
    assert (runtime > 0) == _native.has_cuda()
