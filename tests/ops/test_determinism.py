"""The same inputs give the same bits: run to run, and on the CPU at any number of threads."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest
import torch

import gfl_ops
from benchmarks.eager import oracle_losses
from gfl_ops import _native
from tests.support.backends import only_backends
from tests.support.case_maker import COMPUTE_DTYPE, Case
from tests.support.cases import CASES
from tests.support.running import run_case, to_compute, to_double
from tests.support.tolerance import assert_close

LARGE = [case for case in CASES if case.large]
# Sums over many rows in every op; the small ones for the kernels that run on one thread anyway.
SUMS = [case for case in CASES if case.name in ("65x16", "70x17", "giou-65", "65", "beta2.0-mean", "33x66")]


def bits(case: Case, dtype: torch.dtype, device: str) -> dict[str, torch.Tensor]:
    return {name: x.clone() for name, x in run_case(gfl_ops, case, case.inputs(dtype, device)).named().items()}


def assert_same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    for name, x in a.items():
        assert torch.equal(x, b[name]), f"{name} differs in {int((x != b[name]).sum())} of {x.numel()} places"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("case", [*LARGE, *SUMS], ids=lambda c: c.id)
@only_backends(without=("reference",))
def test_run_to_run(case: Case, dtype: torch.dtype, backend) -> None:
    first = bits(case, dtype, backend.device)
    for _ in range(3):
        assert_same_bits(first, bits(case, dtype, backend.device))


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("case", LARGE, ids=lambda c: c.id)
def test_any_number_of_threads(case: Case, dtype: torch.dtype, needs_native, threads) -> None:
    with gfl_ops.use_backend("native"):
        torch.set_num_threads(1)
        one = bits(case, dtype, "cpu")
        for count in (2, 3):
            torch.set_num_threads(count)
            assert_same_bits(one, bits(case, dtype, "cpu"))


def test_the_core_follows_torch_s_number_of_threads(needs_native, threads) -> None:
    torch.set_num_threads(1)
    assert _native.cpu_threads() == 1
    torch.set_num_threads(2)
    assert _native.cpu_threads() == 2


# ---- instruction sets --------------------------------------------------------------------------------

ISAS = ("baseline", "avx2", "avx512")
HALVES_AND_DOUBLES = (torch.float64, torch.bfloat16, torch.float16)


@contextlib.contextmanager
def instruction_set(name: str) -> Iterator[bool]:
    """Inside, the core uses this one; False where the machine has it not."""
    core = _native.core()
    before = core.cpu_isa()
    try:
        core.set_cpu_isa(name)
    except ValueError:
        yield False
        return
    try:
        yield True
    finally:
        core.set_cpu_isa(before)


def test_some_instruction_set_can_be_chosen(needs_native) -> None:
    with instruction_set("baseline") as there:
        assert there and _native.cpu_isa() == "baseline"


# Every row in float32, and in one of the other dtypes by turns.
ROWS = [(case, torch.float32) for case in CASES]
ROWS += [(case, HALVES_AND_DOUBLES[i % 3]) for i, case in enumerate(CASES) if not case.large]


@pytest.mark.parametrize("case, dtype", ROWS, ids=lambda x: str(x)[6:] if isinstance(x, torch.dtype) else x.id)
def test_every_instruction_set(case: Case, dtype: torch.dtype, needs_native) -> None:
    inputs = case.inputs(dtype)
    truth = run_case(oracle_losses, case, to_double(inputs)).named()
    eager = run_case(oracle_losses, case, to_compute(inputs)).named()
    for isa in ISAS:
        with gfl_ops.use_backend("native"), instruction_set(isa) as there:
            if not there:
                continue
            got = run_case(gfl_ops, case, inputs).named()
        for name, x in got.items():
            assert_close(name, x, truth[name], eager[name], COMPUTE_DTYPE[dtype], case.scale)


def agrees_everywhere(case: Case) -> bool:
    """Whether float32 has no exponential here. docs/numerics.md has the same list."""
    plain_beta = case.op == "generalized_focal_loss" and case.kwargs.get("beta", 2.0) == 2.0
    return plain_beta or case.op in ("iou_loss", "giou_loss", "diou_loss", "ciou_loss", "box_iou")


@pytest.mark.parametrize(
    "case", [case for case in CASES if not case.large or agrees_everywhere(case)], ids=lambda c: c.id
)
def test_instruction_sets_agree_bit_for_bit(case: Case, needs_native) -> None:
    """All of them in float64; AVX2 and AVX-512 also in float32, where neither takes an exponential."""
    compared = [(torch.float64, ISAS)] * (not case.large) + [(torch.float32, ISAS[1:])] * agrees_everywhere(case)
    for dtype, isas in compared:
        found = []
        for isa in isas:
            with gfl_ops.use_backend("native"), instruction_set(isa) as there:
                if there:
                    found.append(bits(case, dtype, "cpu"))
        for other in found[1:]:
            assert_same_bits(found[0], other)


@pytest.mark.parametrize("isa", ISAS)
def test_probabilities_are_rounded_correctly(isa: str, needs_native) -> None:
    """Over n equal logits, and nothing else, each has the float next to 1 / n."""
    numbers = torch.arange(3, 257)
    logits = torch.where(torch.arange(256) < numbers[:, None], 0.0, -torch.inf).requires_grad_()
    with gfl_ops.use_backend("native"), instruction_set(isa) as there:
        if not there:
            pytest.skip(f"this build or CPU has no {isa}")
        gfl_ops.distribution_focal_loss(logits, torch.full((len(numbers),), 0.5), reduction="sum").backward()
    assert logits.grad is not None
    expected = torch.where(logits.detach() == 0, (1 / numbers.double()).float()[:, None], 0.0)
    assert torch.equal(logits.grad[:, 2:], expected[:, 2:])  # the target is between the first two bins


def test_no_approximate_instruction(needs_native) -> None:
    """What they give is the processor's own, and would reach a result."""
    objdump = shutil.which("objdump")
    if objdump is None:
        pytest.skip("no objdump on this machine")
    command = [objdump, "--disassemble", "--no-show-raw-insn", str(_native.core().__file__)]
    code = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(r"\b(v?divps|fdiv)\b", code), "the kernels divide, so this is not their code"
    assert set(re.findall(r"\b(?:v?rcp|v?rsqrt|frecp|frsqrt)[0-9a-z]*\b", code)) == set()


def test_unknown_instruction_set(needs_native) -> None:
    before = _native.cpu_isa()
    with pytest.raises(ValueError, match="sse9"):
        _native.core().set_cpu_isa("sse9")
    assert _native.cpu_isa() == before


def test_the_best_instruction_set_is_chosen(needs_native) -> None:
    capability = torch.backends.cpu.get_cpu_capability()
    expected = {"AVX512": "avx512", "AVX2": "avx2"}.get(capability, "baseline")
    assert _native.cpu_isa() == expected
