"""The `backend` fixture: every test that takes it runs on each backend that this machine has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch

import gfl_ops
from gfl_ops import _native

# "host_cuda" runs the CUDA kernels' source, compiled for the host, on CPU tensors.
BACKENDS = [
    "native",
    "reference",
    "host_cuda",
    pytest.param("cuda", marks=pytest.mark.gpu),
]


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


@pytest.fixture
def needs_native() -> None:
    if not native_is_built():
        pytest.skip("gfl_ops is installed without its native core")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    name = request.param
    if name in ("host_cuda", "cuda") and getattr(request.module, "NATIVE_ON_CPU_ONLY", False):
        pytest.skip("the native kernels of this op are for CPUs only so far")
    if name in ("native", "host_cuda") and not native_is_built():
        pytest.skip("gfl_ops is installed without its native core")
    with contextlib.ExitStack() as stack:
        if name == "cuda" and not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        if name == "host_cuda":
            import host_cuda

            stack.enter_context(host_cuda.route())
        stack.enter_context(gfl_ops.use_backend("reference" if name == "reference" else "native"))
        yield Backend(name, "cuda" if name == "cuda" else "cpu")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The CUDA kernels on the host take small shapes only: one thread there plays a whole GPU."""
    too_large = [item for item in items if _is_large_on_host_cuda(item)]
    if too_large:
        config.hook.pytest_deselected(items=too_large)
        items[:] = [item for item in items if not _is_large_on_host_cuda(item)]


def _is_large_on_host_cuda(item: pytest.Item) -> bool:
    params = getattr(getattr(item, "callspec", None), "params", {})
    return params.get("backend") == "host_cuda" and getattr(params.get("case"), "large", False)
