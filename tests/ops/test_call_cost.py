"""What a call costs beside its kernel: calls of Python and C functions, and the checks that are left out."""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import gfl_ops
from gfl_ops import _native
from tests.support.backends import only_backends
from tests.support.cases import BY_ID, TYPICAL
from tests.support.running import run_case

ROWS, STEPS = 8, 200


def quality_focal_loss() -> tuple[Tensor, Callable[[], Tensor]]:
    pred = torch.randn(ROWS, 80, requires_grad=True)
    label, score = torch.randint(0, 81, (ROWS,)), torch.rand(ROWS)
    return pred, lambda: gfl_ops.quality_focal_loss(pred, (label, score), avg_factor=4.0)


def distribution_focal_loss() -> tuple[Tensor, Callable[[], Tensor]]:
    pred, target = torch.randn(ROWS, 17, requires_grad=True), torch.rand(ROWS) * 15.9
    return pred, lambda: gfl_ops.distribution_focal_loss(pred, target, avg_factor=4.0)


def giou_loss() -> tuple[Tensor, Callable[[], Tensor]]:
    corner = torch.rand(ROWS, 2) * 100
    pred = torch.cat([corner, corner + 20], 1).requires_grad_()
    target = torch.cat([corner + 3, corner + 30], 1)
    return pred, lambda: gfl_ops.giou_loss(pred, target, avg_factor=4.0)


def integral() -> tuple[Tensor, Callable[[], Tensor]]:
    pred = torch.randn(ROWS, 68, requires_grad=True)
    return pred, lambda: gfl_ops.integral(pred).sum()


# Those of torch's own autograd among them: cross_entropy with its backward makes 38.
MOST_CALLS = {quality_focal_loss: 110, distribution_focal_loss: 105, giou_loss: 100, integral: 80}


@pytest.mark.parametrize("make", MOST_CALLS, ids=lambda make: make.__name__)
def test_calls_of_a_small_step(make: Callable[[], tuple[Tensor, Callable[[], Tensor]]], needs_native) -> None:
    pred, loss = make()

    def step() -> None:
        pred.grad = None
        loss().backward()

    for _ in range(20):
        step()
    with cProfile.Profile() as profile:
        for _ in range(STEPS):
            step()
    assert pstats.Stats(profile).total_calls / STEPS <= MOST_CALLS[make]


# ---- checks are remembered ---------------------------------------------------------------------------

SMALL = torch.tensor([[0.1, -0.2, 0.3], [0.4, 0.5, -0.6]])
LABEL, SCORE = torch.tensor([0, 3]), torch.tensor([0.5, 0.0])
BAD = {
    "shape": {"target": (LABEL, SCORE[:1])},
    "dtype": {"target": (LABEL.float(), SCORE)},
    "gradient": {"target": (LABEL, SCORE.clone().requires_grad_())},
    "number": {"beta": -1.0},
    "word": {"reduction": "average"},
    "flag": {"activated": 1},
    "avg_factor": {"reduction": "sum", "avg_factor": 2.0},
    "avg_factor's type": {"avg_factor": "2"},
    "weight": {"weight": torch.ones(3)},
    "device": {"target": (LABEL, SCORE.to("meta"))},
}


@pytest.mark.parametrize("change", BAD)
def test_a_call_unlike_the_last_is_checked(change: str, needs_native) -> None:
    good: dict[str, Any] = {"target": (LABEL, SCORE), "beta": 2.0, "avg_factor": 2.0}
    for _ in range(2):
        gfl_ops.quality_focal_loss(SMALL, **good)
    with pytest.raises((TypeError, ValueError)):
        gfl_ops.quality_focal_loss(SMALL, **good | BAD[change])


# ---- tensors are read in two ways --------------------------------------------------------------------


@pytest.fixture
def by_attributes() -> Iterator[None]:
    """As with a torch that has no exchange API of DLPack's."""
    core = _native.core()
    core.use_exchange_api(False)
    assert not core.has_exchange_api()
    yield
    core.use_exchange_api(True)


@pytest.mark.parametrize("name", TYPICAL)
@only_backends(without=("reference", "host_cuda", "cuda", "triton", "triton_cuda"))
def test_reading_attributes_gives_the_same(name: str, backend, request: pytest.FixtureRequest) -> None:
    case = BY_ID[name]
    inputs = case.inputs(torch.float32)
    expected = run_case(gfl_ops, case, inputs).named()
    request.getfixturevalue("by_attributes")
    for key, x in run_case(gfl_ops, case, inputs).named().items():
        assert torch.equal(x, expected[key])
