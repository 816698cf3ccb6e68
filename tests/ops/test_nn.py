"""The modules: mmdet's arguments, the public functions' results."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import pytest
import torch

import gfl_ops
from benchmarks.eager import oracle_losses
from gfl_ops import nn
from tests.support.cases import BY_ID
from tests.support.running import run

# Class, a row of inputs, a non-default constructor call, and the oracle's arguments for it.
MODULES = [
    (nn.QualityFocalLoss, "quality_focal_loss-9x3", {"beta": 1.5}, {"beta": 1.5}),
    (nn.QualityFocalLoss, "quality_focal_loss-activated-beta2.0-mean", {"activated": True}, {"activated": True}),
    (nn.SigmoidFocalLoss, "sigmoid_focal_loss-9x3", {"gamma": 1.0, "alpha": 0.6}, {"gamma": 1.0, "alpha": 0.6}),
    (nn.VarifocalLoss, "varifocal_loss-9x3", {"gamma": 1.0, "alpha": 0.6}, {"gamma": 1.0, "alpha": 0.6}),
    (nn.VarifocalLoss, "varifocal_loss-dense-weight-None-mean", {"iou_weighted": False}, {"iou_weighted": False}),
    (nn.VarifocalLoss, "varifocal_loss-9x3", {"detach_factor": True}, {"detach_factor": True}),
    (nn.SoftBCELoss, "soft_bce_loss-9x3", {}, {}),
    (nn.DistributionFocalLoss, "distribution_focal_loss-7x17", {}, {}),
    (nn.IoULoss, "iou_loss-giou-mean", {"eps": 1e-4}, {"kind": "iou", "transform": "log", "eps": 1e-4}),
    (nn.IoULoss, "iou_loss-giou-mean", {"linear": True}, {"kind": "iou", "transform": "linear", "eps": 1e-6}),
    (nn.IoULoss, "iou_loss-giou-mean", {"mode": "square"}, {"kind": "iou", "transform": "square", "eps": 1e-6}),
    (nn.GIoULoss, "iou_loss-giou-mean", {"eps": 1e-3}, {"kind": "giou", "eps": 1e-3}),
    (nn.GIoULoss, "iou_loss-giou-mean", {}, {"kind": "giou", "eps": 1e-6}),
    (nn.DIoULoss, "iou_loss-giou-mean", {}, {"kind": "diou", "eps": 1e-6}),
    (nn.CIoULoss, "iou_loss-giou-mean", {}, {"kind": "ciou", "eps": 1e-6}),
]
modules = pytest.mark.parametrize(
    "cls, row, made_with, means", MODULES, ids=[f"{m[0].__name__}-{'-'.join(m[2]) or 'default'}" for m in MODULES]
)


def truth(row: str, inputs: dict[str, Any], **kwargs: Any) -> Any:
    return run(getattr(oracle_losses, BY_ID[row].op), inputs, kwargs, ("pred",))


def assert_same(a: Any, b: Any, scale: float = 1.0) -> None:
    torch.testing.assert_close(a.outputs[0], scale * b.outputs[0], rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(a.grads["pred"], scale * b.grads["pred"], rtol=1e-9, atol=1e-13)


@modules
def test_module(cls: Any, row: str, made_with: dict[str, Any], means: dict[str, Any], backend) -> None:
    inputs = BY_ID[row].inputs(torch.float64, backend.device)
    weight = torch.linspace(0, 1, len(inputs["pred"]), dtype=torch.float64, device=backend.device)
    if cls is nn.SigmoidFocalLoss:
        weight = weight[:, None]
    for reduction in ("mean", "sum", "none"):
        expected = truth(row, inputs | {"weight": weight}, reduction=reduction, **means)
        loss = cls(reduction=reduction, loss_weight=2.0, **made_with)
        assert_same(run(loss, inputs | {"weight": weight}, {}, ("pred",)), expected, 2.0)
        other = cls(loss_weight=2.0, **made_with)
        overridden = run(other, inputs | {"weight": weight}, {"reduction_override": reduction}, ("pred",))
        assert_same(overridden, expected, 2.0)
    for avg_factor in (3.0, torch.tensor(3.0, dtype=torch.float64, device=backend.device)):
        expected = truth(row, inputs | {"weight": weight}, avg_factor=avg_factor, **means)
        got = run(cls(**made_with), inputs | {"weight": weight}, {"avg_factor": avg_factor}, ("pred",))
        assert_same(got, expected)


@modules
def test_positional_arguments(cls: Any, row: str, made_with: dict[str, Any], means: dict[str, Any], backend) -> None:
    """forward(pred, target, weight, avg_factor, reduction_override), as mmdet's heads call it."""
    inputs = BY_ID[row].inputs(torch.float64, backend.device)
    loss = cls(**made_with)
    a = loss(inputs["pred"], inputs["target"], None, 2.0, "mean")
    b = loss(inputs["pred"], inputs["target"], weight=None, avg_factor=2.0)
    assert torch.equal(a, b) and a.dim() == 0
    assert loss(inputs["pred"], inputs["target"], None, None, "none").dim() > 0


def test_knowledge_distillation(backend) -> None:
    """forward(pred, soft_label, weight, avg_factor, reduction_override), the soft labels without gradient."""
    inputs = BY_ID["distribution_kl_loss-7x17"].inputs(torch.float64, backend.device)
    student, teacher = inputs["student"].requires_grad_(), inputs["teacher"].requires_grad_()
    weight = torch.linspace(0, 1, len(student), dtype=torch.float64, device=backend.device)
    for reduction, avg_factor in (("mean", None), ("sum", None), ("none", None), ("mean", 3.0)):
        expected = oracle_losses.distribution_kl_loss(
            student, teacher, 4, weight, reduction, avg_factor, bin_reduction="mean"
        )
        loss = nn.KnowledgeDistillationKLDivLoss(loss_weight=2.0, T=4)
        got = loss(student, teacher, weight, avg_factor, reduction)
        torch.testing.assert_close(got, 2 * expected, rtol=1e-10, atol=1e-14)
        (wanted,) = torch.autograd.grad(expected.sum(), student)
        (found,) = torch.autograd.grad(got.sum(), student)
        torch.testing.assert_close(found, 2 * wanted, rtol=1e-9, atol=1e-13)
    with pytest.raises(ValueError, match="T must be at least 1, got 0"):
        nn.KnowledgeDistillationKLDivLoss(T=0)


MMDET_CONSTRUCTORS = {
    "QualityFocalLoss": "use_sigmoid=True, beta=2.0, reduction='mean', loss_weight=1.0, activated=False",
    "SigmoidFocalLoss": "use_sigmoid=True, gamma=2.0, alpha=0.25, reduction='mean', loss_weight=1.0, activated=False",
    "VarifocalLoss": "use_sigmoid=True, alpha=0.75, gamma=2.0, iou_weighted=True, reduction='mean', loss_weight=1.0, "
    "detach_factor=False",
    "SoftBCELoss": "reduction='mean', loss_weight=1.0, class_weight=None",
    "DistributionFocalLoss": "reduction='mean', loss_weight=1.0",
    "KnowledgeDistillationKLDivLoss": "reduction='mean', loss_weight=1.0, T=10",
    "IoULoss": "linear=False, eps=1e-06, reduction='mean', loss_weight=1.0, mode='log'",
    "GIoULoss": "eps=1e-06, reduction='mean', loss_weight=1.0",
    "DIoULoss": "eps=1e-06, reduction='mean', loss_weight=1.0",
    "CIoULoss": "eps=1e-06, reduction='mean', loss_weight=1.0",
    "Integral": "reg_max=16",
}


@pytest.mark.parametrize("name", MMDET_CONSTRUCTORS)
def test_constructor_arguments_and_repr(name: str) -> None:
    cls = getattr(gfl_ops, name)
    parameters = inspect.signature(cls).parameters.values()
    assert ", ".join(f"{p.name}={p.default!r}" for p in parameters) == MMDET_CONSTRUCTORS[name]
    assert repr(cls()) == f"{name}({MMDET_CONSTRUCTORS[name]})"


def test_repr_shows_what_was_chosen() -> None:
    assert "beta=1.5" in repr(nn.QualityFocalLoss(beta=1.5)) and "reg_max=7" in repr(nn.Integral(7))


@pytest.mark.parametrize("name", MMDET_CONSTRUCTORS)
def test_pickle(name: str) -> None:
    module = getattr(gfl_ops, name)()
    assert repr(pickle.loads(pickle.dumps(module))) == repr(module)


def test_class_weight_moves_with_the_module_and_is_no_parameter(backend) -> None:
    inputs = BY_ID["soft_bce_loss-9x3"].inputs(torch.float64, backend.device)
    module = nn.SoftBCELoss(class_weight=[0.5, 1.0, 2.0]).to(backend.device, torch.float64)
    weight = module.class_weight
    assert weight is not None and weight.dtype == torch.float64 and weight.device.type == backend.device
    assert list(module.state_dict()) == [] and list(module.parameters()) == []
    got = run(module, inputs, {}, ("pred",))
    assert_same(got, truth("soft_bce_loss-9x3", inputs, class_weight=weight))


def test_an_attribute_changed_later_counts() -> None:
    inputs = BY_ID["quality_focal_loss-9x3"].inputs(torch.float32)
    loss = nn.QualityFocalLoss()
    loss.beta, loss.loss_weight, loss.reduction = 1.0, 3.0, "sum"
    expected = 3 * gfl_ops.quality_focal_loss(**inputs, beta=1.0, reduction="sum")
    torch.testing.assert_close(loss(**inputs), expected)


def test_keyword_arguments_reach_the_function() -> None:
    inputs = BY_ID["giou_loss-plain"].inputs(torch.float32)
    expected = gfl_ops.giou_loss(**inputs, eps=1e-6, eps_rule="add")
    assert torch.equal(nn.GIoULoss()(**inputs, eps_rule="add"), expected)


def test_all_zero_weight_gives_an_attached_zero(backend) -> None:
    """mmdet looks at the weight and returns (pred * weight).sum(); the result is the same without the look."""
    for cls, row in ((nn.GIoULoss, "giou_loss-plain"), (nn.QualityFocalLoss, "quality_focal_loss-9x3")):
        inputs = BY_ID[row].inputs(torch.float32, backend.device)
        inputs["weight"] = torch.zeros(len(inputs["pred"]), device=backend.device)
        got = run(cls(), inputs, {"avg_factor": 1.0}, ("pred",))
        assert float(got.outputs[0]) == 0 and not got.grads["pred"].any()


class TestIntegral:
    def test_project_is_a_persistent_buffer(self) -> None:
        module = nn.Integral(7)
        assert list(module.state_dict()) == ["project"]
        assert torch.equal(module.project, torch.arange(8.0))
        module.load_state_dict({"project": torch.arange(8.0) * 2})
        assert module(torch.zeros(1, 32)).tolist() == [[7.0] * 4]

    @pytest.mark.parametrize("shape", [(5, 68), (5, 4, 17), (2, 3, 68), (0, 68), (20, 17)])
    def test_any_shape_becomes_rows_of_four(self, shape: tuple[int, ...], backend) -> None:
        module = nn.Integral().to(backend.device)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(backend.device)
        out = module(x)
        expected = (x.reshape(-1, 17).softmax(1) @ module.project).reshape(-1, 4)
        assert out.shape == expected.shape
        torch.testing.assert_close(out, expected)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
    def test_other_dtypes(self, dtype: torch.dtype, backend) -> None:
        x = torch.randn(3, 68, generator=torch.Generator().manual_seed(0)).to(backend.device, dtype)
        for module in (nn.Integral().to(backend.device), nn.Integral().to(backend.device, dtype)):
            out = module(x)
            assert out.dtype == dtype
            expected = (x.double().reshape(-1, 17).softmax(1) @ module.project.double()).reshape(-1, 4)
            torch.testing.assert_close(out.double(), expected, rtol=2.0**-8, atol=1e-6)


def test_public_names() -> None:
    assert set(nn.__all__) == {*MMDET_CONSTRUCTORS, "GFLLoss"}  # mmdet has its like in a head, not as a class
    for name in nn.__all__:
        assert getattr(gfl_ops, name) is getattr(nn, name)
