"""Analytic gradients against finite differences, in float64."""

from __future__ import annotations

import pytest
import torch

import gfl_ops
from tests.support.case_maker import Case
from tests.support.cases import CASES

SMOOTH = [case for case in CASES if case.differentiable and case.smooth and not case.large]


@pytest.mark.parametrize("case", SMOOTH, ids=lambda c: c.id)
def test_gradcheck(case: Case, backend) -> None:
    inputs = case.inputs(torch.float64, backend.device)
    leaves = tuple(inputs[name].detach().requires_grad_() for name in case.differentiable)

    def function(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        named = dict(zip(case.differentiable, values, strict=True))
        output = getattr(gfl_ops, case.op)(**inputs | named, **case.kwargs)
        outputs = output if isinstance(output, tuple) else (output,)
        return tuple(x for x in outputs if x.requires_grad)

    # Entry by entry where that is quick; random directions beyond. The slope of a mean over many is small, hence rtol.
    quick = sum(leaf.numel() for leaf in leaves) <= 100
    assert torch.autograd.gradcheck(function, leaves, atol=1e-6, rtol=1e-4, fast_mode=not quick)
