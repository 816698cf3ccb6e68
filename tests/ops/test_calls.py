"""Calls of every kind, on every backend: nothing at all, weights, mixed types, memory of every layout, autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import gfl_ops
from gfl_ops import nn
from tests.support.case_maker import Case
from tests.support.cases import BY_ID, CASES
from tests.support.running import as_tuple, map_tensors, run, run_case

NAN = float("nan")
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]

# ---- nothing at all ----------------------------------------------------------------------------------

EMPTY = [
    case for case in CASES if case.differentiable and case.inputs(torch.float32)[case.differentiable[0]].numel() == 0
]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("avg_factor", [None, 3.0, "tensor"])
@pytest.mark.parametrize("case", EMPTY, ids=lambda c: c.id)
def test_empty_input(case: Case, avg_factor: Any, reduction: str, backend) -> None:
    """A zero loss that is attached to the graph, and an empty gradient."""
    inputs = case.inputs(torch.float32, backend.device)
    kwargs = dict(case.kwargs)
    if case.op not in ("integral", "distribution_statistics", "decode_boxes"):
        kwargs["reduction"] = reduction
        if reduction != "sum":
            is_tensor = avg_factor == "tensor"
            kwargs["avg_factor"] = torch.tensor(3.0, device=backend.device) if is_tensor else avg_factor
    got = run(getattr(gfl_ops, case.op), inputs, kwargs, case.differentiable)
    for x in got.outputs:
        assert not x.any() and not x.isnan().any()
    for name, grad in got.grads.items():
        assert grad.shape == inputs[name].shape


def test_no_classes(backend) -> None:
    pred = torch.zeros(3, 0, device=backend.device, requires_grad=True)
    label = torch.zeros(3, dtype=torch.int64, device=backend.device)
    loss = gfl_ops.quality_focal_loss(pred, (label, torch.ones(3, device=backend.device)))
    loss = loss + gfl_ops.sigmoid_focal_loss(pred, label)
    loss.backward()
    assert float(loss.detach()) == 0 and pred.grad.shape == (3, 0)


# ---- weights -----------------------------------------------------------------------------------------

WEIGHTED = [c for c in CASES if c.op not in ("integral", "box_iou") and not c.large and "weight" in c.name]


@pytest.mark.parametrize("case", WEIGHTED, ids=lambda c: c.id)
def test_no_weight_is_a_weight_of_ones(case: Case, backend) -> None:
    inputs = case.inputs(torch.float32, backend.device)
    weight = inputs.pop("weight", None)
    if weight is None:  # a row named after the want of one
        weight = torch.empty(inputs[case.differentiable[0]].shape[0], device=backend.device)
    none = run(getattr(gfl_ops, case.op), inputs, case.kwargs, case.differentiable)
    ones = run(
        getattr(gfl_ops, case.op), inputs | {"weight": torch.ones_like(weight)}, case.kwargs, case.differentiable
    )
    for name, x in none.named().items():
        torch.testing.assert_close(x, ones.named()[name], rtol=1e-6, atol=1e-9)


WITH_A_WEIGHT = [c for c in WEIGHTED if c.inputs(torch.float32, "cpu").get("weight") is not None]


@pytest.mark.parametrize("case", WITH_A_WEIGHT, ids=lambda c: c.id)
def test_weight_of_zeros(case: Case, backend) -> None:
    inputs = case.inputs(torch.float32, backend.device)
    inputs["weight"] = torch.zeros_like(inputs["weight"])
    got = run(getattr(gfl_ops, case.op), inputs, case.kwargs, case.differentiable)
    losses = got.outputs[:2] if case.op == "distribution_box_loss" else got.outputs
    assert all(not x.any() for x in losses) and all(not grad.any() for grad in got.grads.values())


@pytest.mark.parametrize("loss_weight", [2.5, 0.0])
@pytest.mark.parametrize(
    "module",
    [
        nn.QualityFocalLoss,
        nn.SigmoidFocalLoss,
        nn.VarifocalLoss,
        nn.SoftBCELoss,
        nn.DistributionFocalLoss,
        nn.GIoULoss,
    ],
)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_loss_weight(reduction: str, module: Any, loss_weight: float, backend) -> None:
    op = {
        nn.QualityFocalLoss: "quality_focal_loss-9x3",
        nn.SigmoidFocalLoss: "sigmoid_focal_loss-9x3",
        nn.VarifocalLoss: "varifocal_loss-9x3",
        nn.SoftBCELoss: "soft_bce_loss-9x3",
        nn.DistributionFocalLoss: "distribution_focal_loss-7x17",
        nn.GIoULoss: "giou_loss-plain",
    }[module]
    inputs = BY_ID[op].inputs(torch.float32, backend.device)
    plain = run(module(reduction=reduction), inputs, {}, ("pred",))
    weighted = run(module(reduction=reduction, loss_weight=loss_weight), inputs, {}, ("pred",))
    torch.testing.assert_close(weighted.outputs[0], loss_weight * plain.outputs[0])
    torch.testing.assert_close(weighted.grads["pred"], loss_weight * plain.grads["pred"])


# ---- dtypes and memory -------------------------------------------------------------------------------


@pytest.mark.parametrize("pred_dtype", DTYPES, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("other_dtype", DTYPES, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize(
    "name",
    [
        "quality_focal_loss-beta2.0-mean",
        "quality_focal_loss-dense-beta2.0-mean",
        "quality_focal_loss-activated-beta1.5-mean",
        "sigmoid_focal_loss-weight-element-mean",
        "sigmoid_focal_loss-dense-gamma2.0-mean",
        "varifocal_loss-weight-element-mean",
        "varifocal_loss-dense-weight-row-mean",
        "soft_bce_loss-class_weight-row-mean",
        "distribution_focal_loss-sided-mean",
        "distribution_focal_loss-bin_values-mean",
        "integral-bin_values",
        "iou_loss-giou-weight",
        "generalized_focal_loss-beta2.0-mean",
        "distribution_box_loss-giou-mean",
        "distribution_box_loss-per-row-stride",
    ],
)
def test_mixed_dtypes(name: str, other_dtype: torch.dtype, pred_dtype: torch.dtype, backend) -> None:
    """pred's dtype decides; everything else is taken as what it is worth in the compute type."""
    case = BY_ID[name]
    compute = torch.float64 if pred_dtype == torch.float64 else torch.float32
    inputs = case.inputs(pred_dtype, backend.device)
    others = {k: v for k, v in inputs.items() if k not in case.differentiable}
    if case.op == "distribution_focal_loss":  # rounding may not push a target over the last bin
        others["target"] = others["target"] * 0.5
    mixed = map_tensors(lambda x: x.to(other_dtype) if x.is_floating_point() else x, others)
    widened = map_tensors(lambda x: x.to(compute) if x.is_floating_point() else x, mixed)
    a = run(getattr(gfl_ops, case.op), inputs | mixed, case.kwargs, case.differentiable).named()
    b = run(getattr(gfl_ops, case.op), inputs | widened, case.kwargs, case.differentiable).named()
    for key, x in a.items():
        assert x.dtype == b[key].dtype
        assert torch.equal(x, b[key])


@pytest.mark.parametrize("case", [c for c in CASES if not c.large], ids=lambda c: c.id)
def test_nothing_is_left_unwritten(case: Case, backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs and workspaces come from torch.empty; filled with NaN first, they give the same result."""
    inputs = case.inputs(torch.float32, backend.device)
    clean = run_case(gfl_ops, case, inputs).named()
    filled = 0

    def filling(function: Any) -> Any:
        def empty(*args: Any, **kwargs: Any) -> Tensor:
            nonlocal filled
            x = function(*args, **kwargs)
            filled += 1
            with torch.no_grad():
                return x.fill_(NAN if x.is_floating_point() else 0x7F)

        return empty

    for name in ("empty", "empty_like", "empty_strided"):
        monkeypatch.setattr(torch, name, filling(getattr(torch, name)))
    for name in ("new_empty", "new_empty_strided"):
        monkeypatch.setattr(Tensor, name, filling(getattr(Tensor, name)))
    poisoned_run = run_case(gfl_ops, case, inputs).named()
    assert filled or not backend.is_native
    for name, x in poisoned_run.items():
        assert torch.equal(x, clean[name]), name


@pytest.mark.parametrize("case", [c for c in CASES if not c.large], ids=lambda c: c.id)
def test_inputs_are_not_written(case: Case, backend) -> None:
    inputs = case.inputs(torch.float32, backend.device)
    before = map_tensors(torch.clone, inputs)
    run_case(gfl_ops, case, inputs)

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, tuple):
            return all(map(same, a, b))
        return torch.equal(a, b) if isinstance(a, Tensor) else a == b

    assert all(same(inputs[name], before[name]) for name in inputs)


def test_gradient_keeps_the_layout_of_the_prediction(backend) -> None:
    """A channels-last map gets a channels-last gradient, so that the next layer's backward need not copy it."""
    pred = torch.randn(2, 68, 3, 5, device=backend.device).to(memory_format=torch.channels_last).requires_grad_()
    gfl_ops.integral(pred).sum().backward()
    assert pred.grad.is_contiguous(memory_format=torch.channels_last)


def test_expanded_prediction(backend) -> None:
    """Stride 0: one row seen many times; autograd adds the gradients up."""
    row = torch.randn(1, 6, generator=torch.Generator().manual_seed(0)).to(backend.device).requires_grad_()
    label = torch.tensor([0, 6, 2, 6], device=backend.device)
    score = torch.tensor([0.5, 0.0, 1.0, 0.0], device=backend.device)
    loss = gfl_ops.quality_focal_loss(row.expand(4, 6), (label, score), reduction="sum")
    loss.backward()
    copy = row.detach().repeat(4, 1).requires_grad_()
    expected = gfl_ops.quality_focal_loss(copy, (label, score), reduction="sum")
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(row.grad, copy.grad.sum(0, keepdim=True))


def test_unaligned_storage(backend) -> None:
    """A view that starts one element into its storage: wide loads have to cope."""
    for case in (BY_ID["quality_focal_loss-17x80"], BY_ID["distribution_focal_loss-31x17"], BY_ID["integral-7x17"]):
        for dtype in DTYPES:
            inputs = case.inputs(dtype, backend.device)
            pred = inputs["pred"]
            storage = torch.zeros(pred.numel() + 1, dtype=dtype, device=backend.device)
            shifted = storage[1:].view(pred.shape)
            shifted.copy_(pred)
            a, b = run_case(gfl_ops, case, inputs).named(), run_case(gfl_ops, case, inputs | {"pred": shifted}).named()
            for name, x in a.items():
                torch.testing.assert_close(x, b[name], rtol=1e-6, atol=1e-9)


# ---- autograd ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [c for c in CASES if not c.large], ids=lambda c: c.id)
def test_without_grad_the_outputs_are_the_same(case: Case, backend) -> None:
    inputs = case.inputs(torch.float32, backend.device)
    with_grad = run_case(gfl_ops, case, inputs).outputs
    for x, y in zip(as_tuple(getattr(gfl_ops, case.op)(**inputs, **case.kwargs)), with_grad, strict=True):
        assert not x.requires_grad
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-9)
    with torch.inference_mode():
        for x, y in zip(as_tuple(getattr(gfl_ops, case.op)(**inputs, **case.kwargs)), with_grad, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-9)


def test_boxes_and_quality_carry_no_gradient(backend) -> None:
    case = BY_ID["distribution_box_loss-giou-mean"]
    inputs = case.inputs(torch.float32, backend.device)
    inputs["edge_logits"].requires_grad_()
    result = gfl_ops.distribution_box_loss(**inputs, **case.kwargs)
    assert result.loss_iou.requires_grad and result.loss_dfl.requires_grad
    assert not result.boxes.requires_grad and not result.quality.requires_grad


@pytest.mark.parametrize("which", ["loss_iou", "loss_dfl"])
def test_one_of_two_losses_alone(which: str, backend) -> None:
    case = BY_ID["distribution_box_loss-giou-mean"]
    grads = {}
    for name in ("loss_iou", "loss_dfl", "both"):
        inputs = case.inputs(torch.float32, backend.device)
        logits = inputs["edge_logits"].requires_grad_()
        result = gfl_ops.distribution_box_loss(**inputs, **case.kwargs)
        (getattr(result, name) if name != "both" else result.loss_iou + result.loss_dfl).backward()
        grads[name] = logits.grad
    assert grads[which].abs().sum() > 0
    torch.testing.assert_close(grads["loss_iou"] + grads["loss_dfl"], grads["both"])


def test_one_probability_of_two_alone(backend) -> None:
    case = BY_ID["generalized_focal_loss-beta2.0-mean"]
    both = run_case(gfl_ops, case, case.inputs(torch.float32, backend.device)).grads
    for name in case.differentiable:
        alone = run(
            gfl_ops.generalized_focal_loss, case.inputs(torch.float32, backend.device), case.kwargs, (name,)
        ).grads
        torch.testing.assert_close(alone[name], both[name])
