"""The backends that a test may run on, and what it says where it means nothing on some of them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from gfl_ops import _native
from tests.support import triton_interpreter

# "host_cuda" runs the CUDA kernels' source, compiled for the host, on CPU tensors; "triton" the Triton kernels in
# Triton's interpreter, "triton_cuda" the same compiled for the GPU.
BACKENDS = [
    "native",
    "reference",
    "host_cuda",
    "triton",
    pytest.param("cuda", marks=pytest.mark.gpu),
    pytest.param("triton_cuda", marks=pytest.mark.gpu),
]
TRITON = ("triton", "triton_cuda")
GPU = ("cuda", "triton_cuda")
ASKED_FOR = {"reference": "reference", "triton": "triton", "triton_cuda": "triton"}


def only_backends(*, without: tuple[str, ...]) -> pytest.MarkDecorator:
    """For a test that takes `backend` and means nothing on some of them."""
    names = [b if isinstance(b, str) else b.values[0] for b in BACKENDS]
    kept = [b for b, name in zip(BACKENDS, names, strict=True) if name not in without]
    return pytest.mark.parametrize("backend", kept, indirect=True)


@dataclass(frozen=True)
class Backend:
    name: str
    device: str

    @property
    def is_native(self) -> bool:
        return self.name != "reference"


def native_is_built() -> bool:
    return _native.core() is not None


def needs_triton(*, interpreted: bool) -> None:
    if not triton_interpreter.IS_THERE:
        pytest.skip("triton is not installed")
    if interpreted != triton_interpreter.INTERPRETED:
        pytest.skip("the Triton kernels are compiled in this run; TRITON_INTERPRET=1 interprets them")
    if interpreted:
        triton_interpreter.round_to_nearest_even()
