"""Extreme and odd inputs: each has a defined answer, the same on every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import gfl_ops
from tests.support.case_maker import Case
from tests.support.cases import BY_ID
from tests.support.running import run_case

INF, NAN = float("inf"), float("nan")
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])


def loss_and_grad(function: Any, pred: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """An unreduced loss and the gradient of its sum."""
    pred = pred.detach().requires_grad_()
    loss = function(pred, *args, reduction="none", **kwargs)
    loss.backward(torch.ones_like(loss))
    return loss.detach(), pred.grad


def assert_same(actual: Tensor, expected: Any, tolerance: float = 1e-5) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(
        actual.double().cpu(), expected.expand_as(actual), rtol=tolerance, atol=1e-30, equal_nan=True
    )


# ---- infinite and huge logits ------------------------------------------------------------------------

# The gradient's limit; the loss' limit where it is finite, infinite where it is not. At 1e4 the loss is the logit.
NEGATIVE = {INF: (INF, 1.0), 1e4: (1e4, 1.0), -1e4: (0.0, 0.0), -INF: (0.0, 0.0)}
CERTAIN = {x: (loss, -grad) for x, (loss, grad) in ((-x, pair) for x, pair in NEGATIVE.items())}  # target 1
HALFWAY = {x: (abs(x) / 2 * 0.25, 0.5 * 0.25 * (1 if x > 0 else -1)) for x in NEGATIVE}  # target 0.5, exponent 2


@dtypes
@pytest.mark.parametrize("beta", [2.0, 1.0, 1.5, 0.5])
@pytest.mark.parametrize("form", ["index", "dense"])
def test_quality_focal_loss_at_extreme_logits(form: str, beta: float, dtype: torch.dtype, backend) -> None:
    for score, limits in ((0.0, NEGATIVE), (1.0, CERTAIN), (0.5, HALFWAY)):
        if score == 0.5 and beta != 2.0:
            continue
        for label in (0, 1) if score == 0.0 else (0,):  # 1 is background
            logits = torch.tensor([[x] for x in limits], dtype=dtype, device=backend.device)
            ones = torch.ones(4, device=backend.device)
            target: Any = ((ones * label).long(), ones * score) if form == "index" else ones[:, None] * score
            loss, grad = loss_and_grad(gfl_ops.quality_focal_loss, logits, target, beta=beta)
            slack = 0.01 if dtype == torch.bfloat16 else 1e-5  # 1e4 itself is rounded
            assert_same(loss, [loss for loss, _ in limits.values()], slack)
            assert_same(grad[:, 0], [grad for _, grad in limits.values()])


@dtypes
@pytest.mark.parametrize("gamma", [2.0, 1.0, 0.5])
@pytest.mark.parametrize("form", ["index", "dense"])
def test_sigmoid_focal_loss_at_extreme_logits(form: str, gamma: float, dtype: torch.dtype, backend) -> None:
    for positive, limits, alpha in ((False, NEGATIVE, 0.75), (True, CERTAIN, 0.25)):
        logits = torch.tensor([[x] for x in limits], dtype=dtype, device=backend.device)
        label = torch.full((4,), 0 if positive else 1, device=backend.device)
        target = label if form == "index" else (1.0 - label)[:, None]
        loss, grad = loss_and_grad(gfl_ops.sigmoid_focal_loss, logits, target, gamma=gamma)
        slack = 0.01 if dtype == torch.bfloat16 else 1e-5
        assert_same(loss[:, 0], [alpha * loss for loss, _ in limits.values()], slack)
        assert_same(grad[:, 0], [alpha * grad for _, grad in limits.values()])


@dtypes
@pytest.mark.parametrize("form", ["index", "dense"])
@pytest.mark.parametrize("options", [{}, {"gamma": 1.5}, {"iou_weighted": False}, {"detach_factor": True}])
def test_varifocal_loss_at_extreme_logits(options: dict[str, Any], form: str, dtype: torch.dtype, backend) -> None:
    """A positive's score of 0 leaves nothing of its loss if that is the factor; of a soft target, 0 is no positive."""
    halfway = {x: (abs(x) / 2 * 0.5, 0.5 * 0.5 * (1 if x > 0 else -1)) for x in NEGATIVE}
    even = not options.get("iou_weighted", True)
    for positive, score, limits, factor in (
        (False, 0.0, NEGATIVE, 0.75),
        (True, 1.0, CERTAIN, 1.0),
        (True, 0.5, halfway, 2.0 if even else 1.0),
        (True, 0.0, NEGATIVE, 1.0 if even else 0.0),
    ):
        if form == "dense" and positive and score == 0:
            continue
        logits = torch.tensor([[x] for x in limits], dtype=dtype, device=backend.device)
        ones = torch.ones(4, device=backend.device)
        label = (ones * (0 if positive else 1)).long()
        target: Any = (label, ones * score) if form == "index" else ones[:, None] * score
        loss, grad = loss_and_grad(gfl_ops.varifocal_loss, logits, target, **options)
        slack = 0.01 if dtype == torch.bfloat16 else 1e-5
        assert_same(loss[:, 0], [factor * loss if factor else 0.0 for loss, _ in limits.values()], slack)
        assert_same(grad[:, 0], [factor * grad for _, grad in limits.values()])


@dtypes
@pytest.mark.parametrize("form", ["index", "dense"])
def test_soft_bce_loss_at_extreme_logits(form: str, dtype: torch.dtype, backend) -> None:
    halfway = {x: (abs(x) / 2, 0.5 * (1 if x > 0 else -1)) for x in NEGATIVE}
    for score, limits in ((0.0, NEGATIVE), (1.0, CERTAIN), (0.5, halfway)):
        logits = torch.tensor([[x] for x in limits], dtype=dtype, device=backend.device)
        ones = torch.ones(4, device=backend.device)
        target: Any = ((ones * 0).long(), ones * score) if form == "index" else ones[:, None] * score
        loss, grad = loss_and_grad(gfl_ops.soft_bce_loss, logits, target)
        slack = 0.01 if dtype == torch.bfloat16 else 1e-5
        assert_same(loss[:, 0], [loss for loss, _ in limits.values()], slack)
        assert_same(grad[:, 0], [grad for _, grad in limits.values()])


@dtypes
@pytest.mark.parametrize("huge", [INF, 1e4])
def test_distribution_focal_loss_with_one_huge_logit(huge: float, dtype: torch.dtype, backend) -> None:
    logits = torch.zeros(3, 5, dtype=dtype, device=backend.device)
    logits[:, 1] = huge
    target = torch.tensor([1.0, 1.25, 3.0], device=backend.device)
    loss, grad = loss_and_grad(gfl_ops.distribution_focal_loss, logits, target)
    assert_same(loss, [0.0, 0.25 * huge, huge], 0.01)
    # softmax is 1 at bin 1; the target's weights are subtracted.
    assert_same(grad, [[0, 0, 0, 0, 0], [0, 0.25, -0.25, 0, 0], [0, 1, 0, -1, 0]])


@dtypes
def test_distribution_focal_loss_with_minus_infinity(dtype: torch.dtype, backend) -> None:
    logits = torch.zeros(3, 5, dtype=dtype, device=backend.device)
    logits[:, 1] = -INF
    target = torch.tensor([3.0, 1.0, 1.5], device=backend.device)
    loss, grad = loss_and_grad(gfl_ops.distribution_focal_loss, logits, target)
    assert_same(loss, [1.3862943611, INF, INF])
    slack = 2.0**-8 if dtype == torch.bfloat16 else 1e-3
    assert_same(
        grad, [[0.25, 0, 0.25, -0.75, 0.25], [0.25, -1, 0.25, 0.25, 0.25], [0.25, -0.5, -0.25, 0.25, 0.25]], slack
    )


@dtypes
@pytest.mark.parametrize("shape", [(1, 20), (1, 20, 2, 3)], ids=["rows", "map"])
@pytest.mark.parametrize("huge", [INF, 1e4])
def test_integral_with_huge_logits(huge: float, shape: tuple[int, ...], dtype: torch.dtype, backend) -> None:
    pred = torch.zeros(shape, dtype=dtype, device=backend.device)
    for side, bin_ in enumerate((0, 4, 3)):
        pred[:, side * 5 + bin_] = huge
    pred[:, 15:19] = -INF  # all on the last bin
    pred.requires_grad_()
    out = gfl_ops.integral(pred, num_bins=5)
    out.sum().backward()
    expected = torch.tensor([0.0, 4.0, 3.0, 4.0]).reshape(1, 4, *[1] * (len(shape) - 2))
    assert_same(out.detach(), expected.expand(out.shape))
    assert_same(pred.grad, 0.0)


@dtypes
@pytest.mark.parametrize("huge", [INF, 1e4])
def test_distribution_kl_loss_with_huge_logits(huge: float, dtype: torch.dtype, backend) -> None:
    """A student as sure as its teacher; one that is sure of another bin; a teacher that rules out a bin, as its student
    does; and a sure teacher of an undecided student."""
    student, teacher = (torch.zeros(4, 4, dtype=dtype, device=backend.device) for _ in range(2))
    student[:2, 1] = huge
    teacher[0, 1] = huge
    teacher[1, 2] = huge
    student[2, 3] = teacher[2, 3] = -huge
    teacher[3, 0] = huge
    loss, grad = loss_and_grad(gfl_ops.distribution_kl_loss, student, teacher, 2.0)
    expected = torch.tensor([0, 2 * huge, 0, 4 * 1.3862943611])
    torch.testing.assert_close(loss.float().cpu(), expected, rtol=0.01 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)
    expected = torch.tensor([[0, 0, 0, 0], [0, 2, -2, 0], [0, 0, 0, 0], [-1.5, 0.5, 0.5, 0.5]])
    torch.testing.assert_close(grad.float().cpu(), expected, rtol=1e-5, atol=1e-6)


def test_distribution_kl_loss_of_half_types_is_computed_in_float32(backend) -> None:
    """Of close distributions at a high temperature little is left in a half type: the eager formula
    reads three quarters too much."""
    make = torch.Generator().manual_seed(0)
    teacher = torch.randn(50, 33, generator=make).half()
    student = (teacher + 0.05 * torch.randn(50, 33, generator=make)).half()
    losses = [
        gfl_ops.distribution_kl_loss(a.to(backend.device), b.to(backend.device), 5.0)
        for a, b in ((student, teacher), (student.double(), teacher.double()))
    ]
    torch.testing.assert_close(losses[0].double(), losses[1], rtol=2e-3, atol=0)


@dtypes
@pytest.mark.parametrize("shape", [(1, 20), (1, 20, 2, 3)], ids=["rows", "map"])
@pytest.mark.parametrize("huge", [INF, 1e4])
def test_distribution_statistics_with_huge_logits(
    huge: float, shape: tuple[int, ...], dtype: torch.dtype, backend
) -> None:
    """One bin that takes all; two that share it, of which the lower is first; and all bins alike."""
    logits = torch.zeros(shape, dtype=dtype, device=backend.device)
    logits[:, 1] = huge
    logits[:, [7, 9]] = huge
    logits[:, 10:14] = -INF  # all on the last bin
    logits[:, 15:20] = -1e4
    logits.requires_grad_()
    out = gfl_ops.distribution_statistics(logits, 2)
    expected = [1, 0, 0.5, 0.5, 0.5, 0.5, 1, 0, 0.5, 0.2, 0.2, 0.2]
    like = (1, 12, *[1] * (len(shape) - 2))
    slack = 1e-3 if dtype in (torch.float16, torch.bfloat16) else 1e-7
    assert_same(out.detach(), torch.tensor(expected).reshape(like).expand(out.shape), slack)
    of_first = torch.tensor([1.0, 0, 0] * 4).reshape(like).expand(out.shape)
    out.backward(of_first.to(out))
    gradient = torch.zeros(20)
    gradient[[7, 9]] = torch.tensor([0.25, -0.25])
    gradient[15:] = torch.tensor([0.16, -0.04, -0.04, -0.04, -0.04])
    like = (1, 20, *[1] * (len(shape) - 2))
    assert_same(logits.grad, gradient.reshape(like).expand(shape), slack)


EXTREME = {"far": [70.0] * 17, "farther": [-1e4] * 17, "+inf": [INF] + [0.0] * 16, "-inf": [-INF] * 16 + [0.0]}
EXTREME |= {"steep": [95.0] + [-95.0] * 16, "nan": [0.0] * 16 + [NAN]}


@pytest.mark.parametrize("logits", EXTREME.values(), ids=EXTREME)
@pytest.mark.parametrize("op", ["distribution_focal_loss", "integral", "distribution_statistics"])
def test_an_extreme_row_and_its_neighbours(op: str, logits: list[float], backend) -> None:
    """Whatever is worked on together: a row has the result that it has alone."""

    def run(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if op == "distribution_focal_loss":
            return loss_and_grad(gfl_ops.distribution_focal_loss, pred, target)
        pred = pred.reshape(-1, 68).detach().requires_grad_()
        edges = getattr(gfl_ops, op)(pred)
        edges.backward(torch.ones_like(edges))
        return edges.detach().reshape(len(pred) * 4, -1), pred.grad.reshape(-1, 17)

    make = torch.Generator().manual_seed(0)
    pred, target = torch.randn(128, 17, generator=make).to(backend.device), torch.full((128,), 3.25)
    pred[68:72] = torch.tensor(logits)
    results = run(pred, target.to(backend.device))
    alone = run(pred[68:72], target[68:72].to(backend.device))
    others = [i for i in range(128) if not 68 <= i < 72]
    without = run(pred[others], target[others].to(backend.device))
    for together, apart, rest in zip(results, alone, without, strict=True):
        torch.testing.assert_close(together[68:72], apart, rtol=2e-6, atol=2e-6, equal_nan=True)
        torch.testing.assert_close(together[others], rest, rtol=2e-6, atol=2e-6)


@dtypes
def test_distribution_box_loss_with_infinite_logits(dtype: torch.dtype, backend) -> None:
    logits = torch.zeros(1, 4, 8, dtype=dtype, device=backend.device)
    logits[:, :, 2] = INF
    logits.requires_grad_()
    points = torch.tensor([[8.0, 8.0]], device=backend.device)
    boxes = torch.tensor([[6.0, 6.0, 10.0, 10.0]], device=backend.device)
    result = gfl_ops.distribution_box_loss(logits, points, boxes)
    (result.loss_iou + result.loss_dfl).backward()
    assert_same(result.boxes, boxes.cpu())
    assert_same(result.quality, [1.0])
    assert float(result.loss_iou.detach()) == pytest.approx(0, abs=1e-6)
    assert float(result.loss_dfl.detach()) == 0
    assert logits.grad.double().abs().max() < 1e-6


# ---- NaN in, NaN out ---------------------------------------------------------------------------------

NAN_CASES = [
    "quality_focal_loss-beta2.0-none",
    "quality_focal_loss-beta1.5-none",
    "quality_focal_loss-beta0.0-none",
    "quality_focal_loss-dense-beta2.0-none",
    "quality_focal_loss-dense-beta0.0-none",
    "quality_focal_loss-activated-beta2.0-none",
    "quality_focal_loss-activated-beta0.0-none",
    "sigmoid_focal_loss-gamma2.0-none",
    "sigmoid_focal_loss-gamma1.5-none",
    "sigmoid_focal_loss-dense-gamma2.0-none",
    "sigmoid_focal_loss-dense-gamma0.0-none",
    "varifocal_loss-weight-None-none",
    "varifocal_loss-dense-weight-None-none",
    "soft_bce_loss-weight-None-none",
    "soft_bce_loss-dense-weight-None-none",
    "distribution_focal_loss-none",
    "distribution_focal_loss-bin_values-none",
    "distribution_focal_loss-sided-none",
    "iou_loss-iou-linear-none",
    "iou_loss-iou-log-none",
    "iou_loss-giou-none",
    "iou_loss-diou-none",
    "iou_loss-ciou-none",
    "iou_loss-ciou-add-always-none",
    "generalized_focal_loss-beta2.0-none",
    "generalized_focal_loss-beta0.0-none",
    "distribution_box_loss-giou-none",
    "integral-7x17",
]


def poisoned(case: Case, name: str, row: int, dtype: torch.dtype, device: str) -> dict[str, Any]:
    inputs = case.inputs(dtype, device)
    inputs[name] = inputs[name].clone()
    inputs[name][row].view(-1)[-1] = NAN
    return inputs


@dtypes
@pytest.mark.parametrize("case", [BY_ID[name] for name in NAN_CASES], ids=lambda c: c.id)
def test_nan_in_the_prediction(case: Case, dtype: torch.dtype, backend) -> None:
    """NaN in its own row, in loss and gradient; the other rows are as they were."""
    name, row = case.differentiable[0], 3
    clean = run_case(gfl_ops, case, case.inputs(dtype, backend.device))
    got = run_case(gfl_ops, case, poisoned(case, name, row, dtype, backend.device))
    assert_nan_in_row_only(got, clean, row, name)


@pytest.mark.parametrize("case", [BY_ID[name] for name in NAN_CASES if "integral" not in name], ids=lambda c: c.id)
def test_nan_in_the_weight(case: Case, backend) -> None:
    inputs = case.inputs(torch.float32, backend.device)
    rows = inputs[case.differentiable[0]].shape[0]
    inputs["weight"] = torch.ones(rows, device=backend.device)
    clean = run_case(gfl_ops, case, inputs)
    inputs["weight"][3] = NAN
    assert_nan_in_row_only(run_case(gfl_ops, case, inputs), clean, 3, case.differentiable[0], losses=2)


def assert_nan_in_row_only(got: Any, clean: Any, row: int, name: str, losses: int = 99) -> None:
    for x, before in zip(got.outputs[:losses], clean.outputs[:losses], strict=True):
        assert x[row].isnan().any()
        others = torch.arange(x.shape[0]) != row
        assert torch.equal(x[others], before[others])
    grad, before = got.grads[name], clean.grads[name]
    assert grad[row].isnan().any()
    others = torch.arange(grad.shape[0]) != row
    assert torch.equal(grad[others], before[others])


@dtypes
def test_nan_logit_makes_its_own_gradient_nan(dtype: torch.dtype, backend) -> None:
    logits = torch.zeros(3, 4, dtype=dtype, device=backend.device)
    logits[1, 2] = NAN
    label = torch.tensor([0, 1, 2], device=backend.device)
    for function, target in (
        (gfl_ops.quality_focal_loss, (label, torch.rand(3, device=backend.device))),
        (gfl_ops.sigmoid_focal_loss, label),
        (gfl_ops.distribution_focal_loss, label.float()),
    ):
        loss, grad = loss_and_grad(function, logits, target)
        assert loss[1].isnan().any() and not loss[[0, 2]].isnan().any()
        assert grad[1, 2].isnan() and not grad[[0, 2]].isnan().any()
        if function is gfl_ops.distribution_focal_loss:
            assert grad[1].isnan().all()  # the softmax spreads it


def test_nan_target(backend) -> None:
    bad = torch.tensor([0.5, NAN, 0.5], device=backend.device)
    label = torch.tensor([0, 0, 0], device=backend.device)
    logits = torch.zeros(3, 2, device=backend.device)
    probability = logits + 0.5
    for function, pred, target, kwargs in (
        (gfl_ops.quality_focal_loss, logits, (label, bad), {}),
        (gfl_ops.quality_focal_loss, logits, bad[:, None].expand(3, 2), {}),
        (gfl_ops.quality_focal_loss, probability, (label, bad), {"activated": True}),
        (gfl_ops.sigmoid_focal_loss, logits, bad[:, None].expand(3, 2), {}),
        (gfl_ops.varifocal_loss, logits, (label, bad), {}),
        (gfl_ops.varifocal_loss, logits, bad[:, None].expand(3, 2), {}),
        (gfl_ops.soft_bce_loss, logits, (label, bad), {}),
        (gfl_ops.soft_bce_loss, logits, bad[:, None].expand(3, 2), {}),
        (gfl_ops.distribution_focal_loss, logits, bad, {}),
    ):
        loss, grad = loss_and_grad(function, pred, target, **kwargs)
        assert loss[1].isnan().any() and not loss[[0, 2]].isnan().any()
        assert grad[1].isnan().any() and not grad[[0, 2]].isnan().any()


def test_nan_score_of_a_background_row_is_never_looked_at(backend) -> None:
    label = torch.tensor([2, -1, 0], device=backend.device)
    score = torch.tensor([NAN, NAN, 0.5], device=backend.device)
    for function in (gfl_ops.quality_focal_loss, gfl_ops.varifocal_loss, gfl_ops.soft_bce_loss):
        loss, grad = loss_and_grad(function, torch.zeros(3, 2, device=backend.device), (label, score))
        assert loss.isfinite().all() and grad.isfinite().all()


@pytest.mark.parametrize("side", range(4))
@pytest.mark.parametrize("which", ["pred", "target"])
@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_nan_box(kind: str, which: str, side: int, backend) -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4], [1, 1, 5, 6], [2, 2, 9, 9]], device=backend.device)
    inputs = {"pred": boxes + 0.25, "target": boxes.clone()}
    inputs[which][1, side] = NAN
    loss, grad = loss_and_grad(gfl_ops.iou_loss, inputs["pred"], inputs["target"], kind=kind)
    assert loss[1].isnan() and not loss[[0, 2]].isnan().any()
    assert grad[1].isnan().any() and not grad[[0, 2]].isnan().any()
    overlap = gfl_ops.box_iou(inputs["pred"], inputs["target"])
    nan = torch.zeros(3, 3, dtype=torch.bool)
    nan[(1, slice(None)) if which == "pred" else (slice(None), 1)] = True
    assert torch.equal(overlap.isnan().cpu(), nan)


def test_nan_target_box_and_anchor(backend) -> None:
    case = BY_ID["distribution_box_loss-iou-none"]
    clean = run_case(gfl_ops, case, case.inputs(torch.float32, backend.device))
    for name in ("target_boxes", "anchor_points"):
        got = run_case(gfl_ops, case, poisoned(case, name, 3, torch.float32, backend.device))
        for i in (0, 1, 3):
            assert got.outputs[i][3].isnan()
        assert got.grads["edge_logits"][3].isnan().any()
        others = torch.arange(len(clean.outputs[0])) != 3
        for key, x in got.named().items():
            assert torch.equal(x[others], clean.named()[key][others])


# ---- targets outside the bins ------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize(
    "kwargs", [{}, {"first_bin": -2.0}, {"bin_values": True}, {"sided": True}], ids=lambda k: "-".join(k) or "plain"
)
def test_target_outside_the_bins_is_nan_for_its_row(kwargs: dict[str, Any], dtype: torch.dtype, backend) -> None:
    kwargs = dict(kwargs)
    first = kwargs.get("first_bin", 0.0)
    outside = [-0.01, 7.01, -1e30, 1e30, INF, -INF, NAN, 255.0, -1.0, 8.0]
    inside = [0.0, 7.0, 0.5, 6.999, 3.0]
    target = torch.tensor(outside + inside, device=backend.device) + first
    if kwargs.pop("bin_values", False):
        kwargs["bin_values"] = torch.arange(8.0, device=backend.device)
    if kwargs.pop("sided", False):
        kwargs["left_weight"] = kwargs["right_weight"] = torch.full((15,), 0.5, device=backend.device)
    logits = torch.randn(15, 8, generator=torch.Generator().manual_seed(0)).to(backend.device, dtype)
    loss, grad = loss_and_grad(gfl_ops.distribution_focal_loss, logits, target, **kwargs)
    assert loss[:10].isnan().all() and grad[:10].isnan().all()
    assert loss[10:].isfinite().all() and grad[10:].isfinite().all()
    mean = gfl_ops.distribution_focal_loss(logits, target, **kwargs)
    assert mean.isnan()


def test_target_on_the_last_bin_is_that_bin_alone(backend) -> None:
    logits = torch.randn(2, 8, generator=torch.Generator().manual_seed(0)).to(backend.device)
    target = torch.tensor([7.0, 7.0], device=backend.device)
    expected = -torch.log_softmax(logits, -1)[:, 7]
    half = torch.full((2,), 0.5, device=backend.device)
    torch.testing.assert_close(gfl_ops.distribution_focal_loss(logits, target, reduction="none"), expected)
    sided = gfl_ops.distribution_focal_loss(logits, target, reduction="none", left_weight=half, right_weight=half)
    torch.testing.assert_close(sided, 0.5 * expected)


@dtypes
@pytest.mark.parametrize("form", ["index", "dense"])
@pytest.mark.parametrize("beta", [2.0, 0.0])
def test_probability_outside_its_range_is_nan_for_its_row(form: str, beta: float, dtype: torch.dtype, backend) -> None:
    column = torch.tensor([0.125, 0.875, 0.5, 1.25, -0.25, INF, -INF, NAN], dtype=dtype, device=backend.device)
    pred = torch.full((8, 3), 0.25, dtype=dtype, device=backend.device)
    pred[:, 1] = column
    label = torch.tensor([0, 1, 3, 0, 1, 3, 0, 1], device=backend.device)
    score = torch.full((8,), 0.5, device=backend.device)
    target: Any = (label, score) if form == "index" else torch.full((8, 3), 0.5, device=backend.device)
    loss, grad = loss_and_grad(gfl_ops.quality_focal_loss, pred, target, beta=beta, activated=True)
    assert loss[:3].isfinite().all() and loss[3:].isnan().all()
    assert grad[:3].isfinite().all() and grad[3:, 1].isnan().all()


def test_probability_at_its_ends(backend) -> None:
    """Logs are clamped at -100, and the gradient is (p - t) / max(p (1 - p), 1e-12), as torch has it."""
    pred = torch.tensor([[0.0], [1.0], [0.0], [1.0]], dtype=torch.float64, device=backend.device)
    target = torch.tensor([[0.0], [0.0], [1.0], [1.0]], dtype=torch.float64, device=backend.device)
    loss, grad = loss_and_grad(gfl_ops.quality_focal_loss, pred, target, activated=True)
    assert_same(loss, [0.0, 100.0, 100.0, 0.0])
    steep = 1 / float(torch.tensor(1e-12, dtype=torch.float32))
    assert_same(grad[:, 0], [0.0, steep + 200, -steep - 200, 0.0], 1e-14)


# ---- kinks: where max and min tie, torch splits the gradient in half ---------------------------------


@pytest.mark.parametrize("kind", ["iou", "giou", "diou"])
def test_ties_split_the_gradient(kind: str, backend) -> None:
    """Identical boxes: half of each corner's gradient by the overlap, by the union and by the enclosure."""
    box = torch.tensor([[0.0, 0.0, 2.0, 4.0]], dtype=torch.float64, device=backend.device)
    _, grad = loss_and_grad(gfl_ops.iou_loss, box, box.clone(), kind=kind)
    # iou = I / U, U = 2A - I; dI/dx2 = 4 / 2, dU/dx2 = 4 - 2, so that d iou/dx2 = 2 / 8 - 2 / 8 = 0;
    # giou's penalty (C - U) / C: dC/dx2 = 4 / 2, likewise 0; diou's centres coincide.
    assert grad.abs().max() < 1e-6
    _, grad = loss_and_grad(gfl_ops.iou_loss, box, box + torch.tensor([0.0, 0.0, 2.0, 0.0]).to(box), kind="iou")
    # x1, y1, y2 tie; I = 8, U = 16. dI/dx1 = -4 / 2, dU/dx1 = -4 + 2; dI/dx2 = 4, dU/dx2 = 0.
    expected = [-(-2 / 16 + 8 * 2 / 256), -(-1 / 16 + 8 * 1 / 256), -(4 / 16), -(1 / 16 - 8 * 1 / 256)]
    assert_same(grad[0], expected, 1e-12)


def test_touching_boxes_pull_at_each_other(backend) -> None:
    """The clamp of the overlap at 0 passes the gradient at its bound, as torch's does."""
    a = torch.tensor([[0.0, 0.0, 2.0, 2.0]], dtype=torch.float64, device=backend.device)
    b = torch.tensor([[2.0, 0.0, 4.0, 2.0]], dtype=torch.float64, device=backend.device)
    _, grad = loss_and_grad(gfl_ops.iou_loss, a, b, kind="iou", eps=0.0)
    # I = 0, U = 8: d iou/dx2 = (dI/dx2) / 8 = 2 / 8; x1 does not touch the overlap.
    assert_same(grad[0], [0.0, 0.0, -0.25, 0.0], 1e-12)


@pytest.mark.parametrize("alpha_rule", ["half", "always"])
@pytest.mark.parametrize("eps_rule", ["floor", "add"])
def test_ciou_of_identical_boxes_is_zero(eps_rule: str, alpha_rule: str, backend) -> None:
    boxes = torch.tensor([[0.0, 0.0, 3.0, 7.0], [1e3, 1e3, 1.3e3, 1.1e3]], device=backend.device)
    loss, grad = loss_and_grad(gfl_ops.ciou_loss, boxes, boxes.clone(), eps_rule=eps_rule, alpha_rule=alpha_rule)
    assert loss.abs().max() < 1e-6 and grad.isfinite().all()
