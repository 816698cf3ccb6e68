"""Class losses over the maps of all levels: the loss of their positions one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks.eager import oracle_losses
from benchmarks.harness.random_head import head
from gfl_ops import multilevel_sigmoid_focal_loss, multilevel_soft_bce_loss, multilevel_varifocal_loss
from tests.support.case_maker import channels_last, contiguous, strided_cols

OUTSIDE = -2

PLAIN_ON_TRITON = {
    "test_it_is_the_loss_of_all_positions": {
        "dtype": [torch.float32, torch.bfloat16],
        "layout": [contiguous, channels_last],
        "classes": [5],
    },
    "test_losses_of_labels_and_scores": {
        "dtype": [torch.float32, torch.bfloat16],
        "layout": [contiguous, channels_last],
        "classes": [5],
    },
    "test_what_is_left_out_says_nothing": {},
}
SCORED = {
    multilevel_varifocal_loss: oracle_losses.varifocal_loss,
    multilevel_soft_bce_loss: oracle_losses.soft_bce_loss,
}


def inputs(
    dtype: torch.dtype, layout, classes: int = 5, device: str = "cpu"
) -> tuple[list[torch.Tensor], torch.Tensor]:
    preds = head(1, (0, 0), (96, 128), classes=classes).map(lambda x: layout(x.to(device, dtype))).cls_scores
    anchors = sum(x.shape[2] * x.shape[3] for x in preds)
    labels = torch.randint(-2, classes + 2, (2, anchors), generator=torch.Generator().manual_seed(2))
    return preds, labels.to(device)


@pytest.mark.parametrize("classes", [1, 5, 81])
@pytest.mark.parametrize("layout", [contiguous, channels_last, strided_cols])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize(
    "options",
    [{}, {"reduction": "sum"}, {"avg_factor": 7.5, "gamma": 1.5, "alpha": 0.6}, {"avg_factor": torch.tensor(3.0)}],
    ids=["mean", "sum", "avg_factor", "tensor"],
)
def test_it_is_the_loss_of_all_positions(options: dict, dtype: torch.dtype, layout, classes: int, backend) -> None:
    preds, labels = inputs(dtype, layout, classes, backend.device)
    loss = multilevel_sigmoid_focal_loss(preds, labels, **options)
    assert_is_the_loss_of_rows(loss, preds, labels, labels.flatten(), oracle_losses.sigmoid_focal_loss, options)


def scores_of(labels: torch.Tensor) -> torch.Tensor:
    """0 and 1 among them; NaN where nobody may look."""
    scores = torch.rand(labels.shape, generator=torch.Generator().manual_seed(3)).mul(1.2).sub(0.1).clamp(0, 1)
    return torch.where(labels.cpu() < 0, torch.nan, scores).to(labels.device)


@pytest.mark.parametrize("classes", [1, 5, 81])
@pytest.mark.parametrize("layout", [contiguous, channels_last, strided_cols])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize(
    ("function", "options"),
    [
        (multilevel_varifocal_loss, {}),
        (multilevel_varifocal_loss, {"avg_factor": 7.5, "gamma": 1.5, "alpha": 0.6, "iou_weighted": False}),
        (multilevel_varifocal_loss, {"reduction": "sum", "detach_factor": True}),
        (multilevel_soft_bce_loss, {}),
        (multilevel_soft_bce_loss, {"avg_factor": torch.tensor(3.0)}),
    ],
    ids=["varifocal", "varifocal-even", "varifocal-detached", "soft_bce", "soft_bce-avg_factor"],
)
def test_losses_of_labels_and_scores(
    function: Any, options: dict, dtype: torch.dtype, layout, classes: int, backend
) -> None:
    preds, labels = inputs(dtype, layout, classes, backend.device)
    scores = scores_of(labels)
    loss = function(preds, labels, scores, **options)
    target = labels.flatten(), scores.nan_to_num().flatten()
    assert_is_the_loss_of_rows(loss, preds, labels, target, SCORED[function], options)


def assert_is_the_loss_of_rows(
    loss: torch.Tensor, preds: list[torch.Tensor], labels: torch.Tensor, target: Any, oracle: Callable, options: dict
) -> None:
    dtype = preds[0].dtype
    truth = [x.detach().double().requires_grad_() for x in preds]
    rows = torch.cat([x.permute(0, 2, 3, 1).flatten(1, 2) for x in truth], 1).flatten(0, 1)
    kept = (labels.flatten() != OUTSIDE).double()
    expected = oracle(rows, target, kept, **options)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-12 if dtype == torch.float64 else 2e-6, atol=0)
    rtol = {torch.float64: 1e-11, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    found = torch.autograd.grad(2 * loss, preds)
    for got, value in zip(found, torch.autograd.grad(2 * expected, truth), strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got.double(), value, rtol=rtol, atol=1e-9)


@pytest.mark.parametrize("function", [multilevel_sigmoid_focal_loss, *SCORED], ids=lambda f: f.__name__)
@pytest.mark.parametrize("layout", [contiguous, channels_last])
def test_what_is_left_out_says_nothing(layout, function, backend) -> None:
    preds, labels = inputs(torch.float32, layout, device=backend.device)
    labels = torch.where(labels == OUTSIDE, -1, labels)
    labels[:, ::3] = OUTSIDE
    target = (labels, scores_of(labels)) if function in SCORED else (labels,)
    left_out = labels.split([x[0, 0].numel() for x in preds], 1)
    left_out = [(part == OUTSIDE).view(x.shape[0], 1, *x.shape[2:]) for x, part in zip(preds, left_out, strict=True)]
    found = []
    for value in (0.0, 1e4, -1e4):
        changed = [torch.where(out, value, x.detach()) for x, out in zip(preds, left_out, strict=True)]
        changed = [layout(x).requires_grad_() for x in changed]
        loss = function(changed, *target, avg_factor=3.0)
        found.append([loss, *torch.autograd.grad(2 * loss, changed)])
    for gradient, out in zip(found[0][1:], left_out, strict=True):
        assert gradient.any() and not gradient.where(out, 0.0).any()
    for other in found[1:]:
        assert all(map(torch.equal, other, found[0]))


def test_label_types(backend) -> None:
    preds, labels = inputs(torch.float32, contiguous, device=backend.device)
    expected = multilevel_sigmoid_focal_loss(preds, labels)
    for dtype in (torch.int32, torch.int16):
        assert torch.equal(multilevel_sigmoid_focal_loss(preds, labels.to(dtype)), expected)


def test_errors() -> None:
    preds, labels = inputs(torch.float32, contiguous)
    for change, error, words in (
        ({"preds": preds[0]}, TypeError, "preds must be a list of tensors, got Tensor"),
        ({"preds": [preds[0], preds[1][:, :2]]}, ValueError, r"preds\[1\] must be \(B, C, H, W\) = \(2, 5, 6, 8\)"),
        ({"labels": labels[:, :-1]}, ValueError, r"labels must be \(B, A\) = \(2, \d+\), got"),
        ({"labels": labels.float()}, TypeError, "labels must be int64.* got float32"),
        ({"reduction": "none"}, ValueError, "reduction must be one of 'mean', 'sum', got 'none'"),
        ({"alpha": 2}, ValueError, r"alpha must be in \[0, 1\]"),
    ):
        with pytest.raises(error, match=f"multilevel_sigmoid_focal_loss: {words}"):
            multilevel_sigmoid_focal_loss(**({"preds": preds, "labels": labels} | change))


@pytest.mark.parametrize("function", SCORED, ids=lambda f: f.__name__)
def test_errors_of_labels_and_scores(function: Any) -> None:
    preds, labels = inputs(torch.float32, contiguous)
    good = {"preds": preds, "labels": labels, "scores": torch.rand(labels.shape)}
    function(**good)
    changes: list[tuple[dict, type[Exception], str]] = [
        ({"preds": preds[0]}, TypeError, "preds must be a list of tensors, got Tensor"),
        ({"labels": labels[:, :-1]}, ValueError, r"labels must be \(B, A\) = \(2, \d+\), got"),
        ({"scores": good["scores"][:, :-1]}, ValueError, r"scores must be \(B, A\) = \(2, \d+\), got"),
        ({"scores": labels}, TypeError, "scores must be float32.* got int64"),
        ({"scores": good["scores"].clone().requires_grad_()}, ValueError, "scores must not require grad"),
        ({"reduction": "none"}, ValueError, "reduction must be one of 'mean', 'sum', got 'none'"),
        ({"reduction": "sum", "avg_factor": 2.0}, ValueError, "avg_factor cannot be used with reduction 'sum'"),
    ]
    if function is multilevel_varifocal_loss:
        changes += [
            ({"alpha": -1}, ValueError, "alpha must be at least 0"),
            ({"gamma": -1}, ValueError, "gamma must be at least 0"),
            ({"iou_weighted": 1}, TypeError, "iou_weighted must be True or False, got int"),
            ({"detach_factor": None}, TypeError, "detach_factor must be True or False, got NoneType"),
        ]
    for change, error, words in changes:
        with pytest.raises(error, match=f"{function.__name__}: {words}"):
            function(**(good | change))
