"""The `backend` fixture: every test that takes it runs on each backend that this machine has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import gfl_ops
from gfl_ops import _native
from tests.support import triton_interpreter  # noqa: F401  (before anything imports triton)
from tests.support.backends import ASKED_FOR, BACKENDS, GPU, TRITON, Backend, native_is_built, needs_triton
from tests.support.case_maker import Case
from tests.support.cases import KINDS_OF_ARGUMENTS, SMOKE, TYPICAL

# The rows that a plain run has on Triton where they are not the typical ones; parity has other dtypes than float32.
PLAIN_ON_TRITON: dict[str, list[str]] = {
    "test_parity": KINDS_OF_ARGUMENTS + TYPICAL,
    "test_opcheck": KINDS_OF_ARGUMENTS,
    "test_compile": [],  # test_compile_as_one_graph has the same graphs
    "test_autocast_changes_nothing": [],
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cpu-isa",
        choices=("baseline", "avx2", "avx512"),
        help="run the CPU kernels of this instruction set; tests of the CUDA and Triton kernels are left out",
    )


def pytest_configure(config: pytest.Config) -> None:
    isa, core = config.getoption("--cpu-isa"), _native.core()
    if isa is None:
        return
    if core is None:
        raise pytest.UsageError("--cpu-isa: gfl_ops is installed without its native core")
    try:
        core.set_cpu_isa(isa)
    except ValueError as error:
        raise pytest.UsageError(f"--cpu-isa: {error}") from error


@pytest.fixture
def needs_native() -> None:
    if not native_is_built():
        pytest.skip("gfl_ops is installed without its native core")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    name = request.param
    if name in ("native", "host_cuda") and not native_is_built():
        pytest.skip("gfl_ops is installed without its native core")
    with contextlib.ExitStack() as stack:
        if name in GPU and not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        if name in TRITON:
            needs_triton(interpreted=name == "triton")
        if name == "host_cuda":
            from tests.support import host_cuda

            stack.enter_context(host_cuda.route())
        stack.enter_context(gfl_ops.use_backend(ASKED_FOR.get(name, "native")))
        yield Backend(name, "cuda" if name in GPU else "cpu")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The CUDA kernels on the host take small shapes only: one thread there plays a whole GPU. Triton's interpreter
    takes a tenth of a second a launch, its compiler more: a plain run has few rows of the case table there, and of a
    module that has other rows those of its PLAIN_ON_TRITON: tests, and the values of their parameters. A module about
    ops that have no Triton kernels says WITHOUT_TRITON."""
    cpu_alone = config.getoption("--cpu-isa") is not None

    def is_out(item: pytest.Item) -> bool:
        return _is_large_on_host_cuda(item) or _has_no_triton(item) or (cpu_alone and _has_other_kernels(item))

    out = [item for item in items if is_out(item)]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if not is_out(item)]
    for item in items:
        if _is_long_on_triton(item):
            item.add_marker(pytest.mark.exhaustive)
        if _is_smoke(item):
            item.add_marker(pytest.mark.smoke)


def _params(item: pytest.Item) -> dict[str, Any]:
    return getattr(getattr(item, "callspec", None), "params", {})


def _is_large_on_host_cuda(item: pytest.Item) -> bool:
    return _params(item).get("backend") == "host_cuda" and getattr(_params(item).get("case"), "large", False)


def _has_no_triton(item: pytest.Item) -> bool:
    return _params(item).get("backend") in TRITON and getattr(item.module, "WITHOUT_TRITON", False)


def _is_smoke(item: pytest.Item) -> bool:
    """Of the tests marked `gpu`: what only a device can show, the same bits again, and a few rows of all ops."""
    module, params = item.module.__name__.rpartition(".")[2], _params(item)
    if item.get_closest_marker("gpu") is None or params.get("backend") == "triton_cuda":
        return False
    if module == "test_parity" and isinstance(params.get("case"), Case):
        return getattr(item, "originalname", "") == "test_parity" and params["case"].id in SMOKE
    return module.endswith("_gpu") or module == "test_determinism"


def _has_other_kernels(item: pytest.Item) -> bool:
    return _params(item).get("backend", "native") not in ("native", "reference")


def _is_long_on_triton(item: pytest.Item) -> bool:
    params, name = _params(item), getattr(item, "originalname", "")
    if params.get("backend") not in TRITON:
        return False
    plain_here = getattr(item.module, "PLAIN_ON_TRITON", None)
    if plain_here is not None:
        return name not in plain_here or any(params[key] not in few for key, few in plain_here[name].items())
    case, dtype = params.get("case"), params.get("dtype", params.get("pred_dtype", torch.float32))
    if dtype != torch.float32 and name != "test_parity":
        return True
    usual = dtype in (torch.float32, torch.bfloat16)
    plain = PLAIN_ON_TRITON.get(name, TYPICAL) if usual else TYPICAL
    return isinstance(case, Case) and case.id not in plain
