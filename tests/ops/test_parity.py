"""Every row of the case table, in every dtype, on every backend: values and gradients against the truth."""

from __future__ import annotations

import pytest
import torch

import gfl_ops
from benchmarks.eager import oracle_losses
from tests.support.case_maker import COMPUTE_DTYPE, Case
from tests.support.cases import CASES
from tests.support.running import run_case, to_compute, to_double
from tests.support.tolerance import assert_close

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_parity(case: Case, dtype: torch.dtype, backend) -> None:
    inputs = case.inputs(dtype, backend.device)
    compute = COMPUTE_DTYPE[dtype]
    got = run_case(gfl_ops, case, inputs)
    truth = run_case(oracle_losses, case, to_double(inputs)).named()
    eager = run_case(oracle_losses, case, to_compute(inputs)).named()

    for name, x in got.named().items():
        assert_close(name, x, truth[name], eager[name], compute, case.scale)
    output_dtype = dtype if case.op in ("integral", "distribution_statistics") else compute
    assert {x.dtype for x in got.outputs} == {output_dtype}
    assert {x.device.type for x in got.outputs} == {backend.device}
    assert {g.dtype for g in got.grads.values()} <= {dtype}


def test_the_comparison_sees_an_error_above_the_floor() -> None:
    truth = torch.tensor([1.0, -5.0, 0.0, 1e-3], dtype=torch.float64)
    assert_close("output", (truth * (1 + 1e-6) + 5e-7).float(), truth, None, torch.float32)
    for index, off in enumerate([4e-6, 2e-5, 2e-6, 2e-6]):
        wrong = truth.clone()
        wrong[index] += off
        with pytest.raises(AssertionError, match="output: error"):
            assert_close("output", wrong.float(), truth, None, torch.float32)
    for value in (torch.nan, torch.inf):
        wrong = truth.clone()
        wrong[0] = value
        with pytest.raises(AssertionError, match="error inf"):
            assert_close("output", wrong, truth, None, torch.float64)


@pytest.mark.parametrize("case", [case for case in CASES if case.differentiable and not case.large], ids=lambda c: c.id)
def test_backward_twice_with_a_unit_gradient(case: Case, backend) -> None:
    """A gradient saved by the forward survives retain_graph and is scaled once per backward."""
    inputs = case.inputs(torch.float32, backend.device)
    leaves = {name: inputs[name].detach().requires_grad_() for name in case.differentiable}
    output = getattr(gfl_ops, case.op)(**inputs | leaves, **case.kwargs)
    outputs = [x for x in (output if isinstance(output, tuple) else (output,)) if x.requires_grad]
    total = sum(x.sum() for x in outputs)
    first = torch.autograd.grad(total, list(leaves.values()), retain_graph=True)
    fourfold = torch.autograd.grad(4 * total, list(leaves.values()), retain_graph=True)
    ones = [torch.ones_like(x) for x in outputs]
    dense = torch.autograd.grad(outputs, list(leaves.values()), ones, retain_graph=True)
    again = torch.autograd.grad(total, list(leaves.values()))
    for a, b, c, d in zip(first, fourfold, dense, again, strict=True):
        torch.testing.assert_close(b, 4 * a, rtol=0, atol=1e-37)  # a power of two: only subnormals may round
        assert torch.equal(a, c)  # the gradient of a sum comes as one value for all
        assert torch.equal(a, d)
