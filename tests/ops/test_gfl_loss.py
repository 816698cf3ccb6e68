"""The whole GFL loss: against the loss as detectors run it today, and what must hold of any loss of that kind."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import gfl_ops
from benchmarks.eager import oracle_gfl_loss
from benchmarks.harness.random_head import LOSSES, STRIDES, UPSTREAM, gradients, head, losses_of, padded
from gfl_ops import GFLLoss, PaddedTargets, gfl_loss
from tests.support.backends import only_backends
from tests.support.case_maker import channels_last, strided_cols
from tests.support.programs import environment, support_program
from tests.support.raw_ops import OF_THE_WHOLE_LOSS, RecordRawOps, with_raw_ops

PLAIN_ON_TRITON = {
    "test_it_is_the_usual_loss": {
        "dtype": [torch.float64, torch.float32],
        "case": ["all padded", "one class", "two levels"],
    },
    "test_half_types_are_widened_and_gradients_rounded_once": {"dtype": [torch.bfloat16]},
    "test_layouts": {"dtype": [torch.float32], "layout": [channels_last]},
    "test_opcheck": {},
    "test_compile_as_one_graph": {"dtype": [torch.float32]},
    "test_no_room_for_gts": {},
    "test_nothing_waits_for_the_device": {},
}

native_backends = only_backends(without=("reference",))
# The CUDA kernels on the host are a patch of the eager path, and of this process.
compiled_backends = only_backends(without=("reference", "host_cuda"))
cpu_backends = only_backends(without=("host_cuda", "cuda", "triton_cuda"))

TOLERANCE = {torch.float64: (1e-12, 1e-13), torch.float32: (1e-6, 1e-6)}  # losses relative, gradients absolute

CASES = {
    "usual": (head(1, (7, 3)), {}),
    "without gts": (head(2, (0, 5, 0)), {}),
    "nothing at all": (head(3, (0,)), {}),
    "crowd": (head(4, (60,), (96, 128)), {}),
    "padded": (head(5, (6, 6), valid=0.6), {}),
    "all padded": (head(6, (4,), valid=0.0), {}),
    "one class": (head(7, (5,), classes=1), {}),
    "many classes": (head(8, (5,), (64, 96), classes=203), {}),
    "reg_max 7": (head(9, (5,), bins=8), {}),
    "reg_max 32": (head(10, (5,), (64, 96), bins=33), {}),
    "odd sizes": (head(11, (4, 4), (97, 131)), {}),
    "centers": (head(12, (4, 4)), {"center_offset": 0.5, "anchor_scale": 5.0, "topk": 4}),
    "weights": (head(13, (4, 4)), {"loss_weights": (0.5, 3.0, 1.5), "beta": 1.5}),
    "iou": (head(14, (6,)), {"iou_kind": "iou"}),
    "diou": (head(15, (6,)), {"iou_kind": "diou"}),
    "ciou": (head(16, (6,)), {"iou_kind": "ciou"}),
    "another ciou": (head(16, (6,)), {"iou_kind": "ciou", "eps_rule": "add", "alpha_rule": "always"}),
    "two levels": (head(17, (6,), strides=(4, 32)), {"strides": (4, 32)}),
}
each_case = pytest.mark.parametrize("case", CASES)


@each_case
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=lambda d: str(d)[6:])
def test_it_is_the_usual_loss(case: str, dtype: torch.dtype, backend) -> None:
    inputs, options = CASES[case]
    inputs = inputs.to(backend.device).map(lambda x: x.to(dtype))
    truth = inputs.map(torch.Tensor.double)
    expected = losses_of(oracle_gfl_loss.gfl_loss, truth, **options)
    expected_gradients = gradients(expected, truth)
    losses = losses_of(gfl_loss, inputs, **options)
    rtol, atol = TOLERANCE[dtype]
    for name, loss, value in zip(LOSSES, losses, expected, strict=True):
        assert loss.dtype == dtype and loss.shape == ()
        torch.testing.assert_close(loss.double(), value, rtol=rtol, atol=0, msg=lambda m, n=name: f"{n}: {m}")
    for got, value in zip(gradients(losses, inputs), expected_gradients, strict=True):
        torch.testing.assert_close(got.double(), value, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=lambda d: str(d)[6:])
def test_half_types_are_widened_and_gradients_rounded_once(dtype: torch.dtype, backend) -> None:
    half = head(1, (7, 3)).to(backend.device).map(lambda x: x.to(dtype))
    wide = half.map(torch.Tensor.float)
    losses, expected = losses_of(gfl_loss, half), losses_of(gfl_loss, wide)
    for loss, value in zip(losses, expected, strict=True):
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, value, rtol=1e-6, atol=0)
    upstream = (2.0**12,) * 3  # as a gradient scaler has it: nothing may underflow before it is multiplied
    for got, value in zip(gradients(losses, half, upstream), gradients(expected, wide, upstream), strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got, value.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-7)


@pytest.mark.parametrize("layout", [channels_last, strided_cols])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=lambda d: str(d)[6:])
def test_layouts(layout, dtype: torch.dtype, backend) -> None:
    plain = head(1, (7, 3), valid=0.9).to(backend.device).map(lambda x: x.to(dtype))
    other = plain.map(layout)
    losses, expected = losses_of(gfl_loss, other), losses_of(gfl_loss, plain)
    torch.testing.assert_close(losses, expected, rtol=1e-6, atol=0)
    for got, value in zip(gradients(losses, other), gradients(expected, plain), strict=True):
        torch.testing.assert_close(got, value, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-9)


def test_mixed_layouts_and_frozen_branches(backend) -> None:
    inputs = head(1, (7, 3)).to(backend.device)
    expected = gradients(losses_of(gfl_loss, inputs), inputs)
    inputs.cls_scores[1] = channels_last(inputs.cls_scores[1].detach()).requires_grad_()
    inputs.bbox_preds[0] = channels_last(inputs.bbox_preds[0].detach()).requires_grad_()
    for frozen, part in ((inputs.bbox_preds, slice(0, 5)), (inputs.cls_scores, slice(5, 10)), ((), slice(0, 10))):
        for x in inputs.maps:
            x.requires_grad_(all(x is not y for y in frozen))
        losses = losses_of(gfl_loss, inputs)
        total = sum(u * loss for u, loss in zip(UPSTREAM, losses, strict=True) if loss.requires_grad)
        got = torch.autograd.grad(total, inputs.maps[part])
        for a, b in zip(got, expected[part], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("fill", [0.0, torch.nan, 100.0])
def test_padding_changes_nothing(fill: float, backend) -> None:
    inputs = head(1, (7, 0, 3))
    expected = losses_of(gfl_loss, inputs.to(backend.device))
    for most in (7, 20):
        targets = PaddedTargets(*(x.to(backend.device) for x in padded(inputs.targets, most, fill)))
        assert all(map(torch.equal, losses_of(gfl_loss, replace(inputs.to(backend.device), targets=targets)), expected))


def test_a_label_says_what_is_padding(backend) -> None:
    inputs = head(1, (7, 3)).to(backend.device)
    expected = losses_of(gfl_loss, inputs)
    boxes, labels, counts = (x.to(backend.device) for x in padded(inputs.targets, 9, 50.0))
    unknown = torch.arange(9, device=backend.device) >= counts[:, None]
    for label in (-1, 5, 1 << 40):
        targets = PaddedTargets(boxes, torch.where(unknown, label, labels))
        assert all(map(torch.equal, losses_of(gfl_loss, replace(inputs, targets=targets)), expected))


def test_no_room_for_gts(backend) -> None:
    inputs = head(1, (0, 0)).to(backend.device)
    targets = PaddedTargets(torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2).long())
    targets = PaddedTargets(*(x.to(backend.device) for x in targets))
    assert all(map(torch.equal, losses_of(gfl_loss, replace(inputs, targets=targets)), losses_of(gfl_loss, inputs)))


def test_integer_types_of_targets(backend) -> None:
    inputs = head(1, (7, 3)).to(backend.device)
    expected = losses_of(gfl_loss, inputs)
    for dtype in (torch.int32, torch.int16, torch.uint8):
        targets = [{"boxes": t["boxes"], "labels": t["labels"].to(dtype)} for t in inputs.targets]
        valid = torch.tensor([[160, 224]] * 2, dtype=torch.int64, device=backend.device)
        assert all(
            map(torch.equal, losses_of(gfl_loss, replace(inputs, targets=targets, valid_shapes=valid)), expected)
        )


# ---- properties --------------------------------------------------------------------------------------


def test_the_order_of_the_gts_does_not_matter(backend) -> None:
    inputs = head(21, (25,)).to(backend.device)
    order = torch.randperm(25, generator=torch.Generator().manual_seed(0)).to(backend.device)
    targets = [{name: x[order] for name, x in target.items()} for target in inputs.targets]
    assert all(map(torch.equal, losses_of(gfl_loss, replace(inputs, targets=targets)), losses_of(gfl_loss, inputs)))


def test_a_batch_is_its_images(backend) -> None:
    """But for the divisors: with logits of 0 every weight is a half, so that all of them are known."""
    inputs = head(22, (7, 12, 1), dtype=torch.float64).to(backend.device)
    inputs.cls_scores = [torch.zeros_like(x) for x in inputs.cls_scores]

    def sums(image) -> torch.Tensor:
        result = gfl_loss(image.cls_scores, image.bbox_preds, image.targets)
        weight = (result["num_pos"] / 2).clamp(min=1)
        return torch.stack([result["loss_cls"] * result["avg_factor"], *(result[n] * weight for n in LOSSES[1:])])

    together = sums(inputs)
    torch.testing.assert_close(sum(sums(inputs.image(i)) for i in range(3)), together, rtol=1e-7, atol=0)


def test_scaling_everything_changes_nothing(backend) -> None:
    inputs = head(23, (9, 4)).to(backend.device)
    targets = [{"boxes": t["boxes"] * 4, "labels": t["labels"]} for t in inputs.targets]
    scaled = losses_of(gfl_loss, replace(inputs, targets=targets), strides=[4 * stride for stride in STRIDES])
    torch.testing.assert_close(scaled, losses_of(gfl_loss, inputs), rtol=1e-6, atol=0)


def test_statistics(backend) -> None:
    inputs = head(24, (7, 0, 9)).to(backend.device)
    result = gfl_loss(inputs.cls_scores, inputs.bbox_preds, inputs.targets)
    counts = torch.tensor([7, 0, 9], device=backend.device)
    boxes = torch.stack([torch.nn.functional.pad(t["boxes"], (0, 0, 0, 9 - len(t["boxes"]))) for t in inputs.targets])
    with gfl_ops.use_backend("reference"):
        assigned, _ = gfl_ops.atss_assign(boxes, counts, [x.shape[2:] for x in inputs.cls_scores], STRIDES)
    positives = (assigned >= 0).sum(1)
    assert result["num_pos"] == positives.sum() > 0
    assert result["avg_factor"] == positives.clamp(min=1).sum()
    assert 0 < result["mean_quality"] < 1
    assert set(result) == {*LOSSES, "num_pos", "avg_factor", "mean_quality"}
    assert not any(result[name].requires_grad for name in result if name not in LOSSES)


# ---- gradients ---------------------------------------------------------------------------------------


def test_gradients_survive_a_kept_graph_and_add_up(backend) -> None:
    inputs = head(31, (7, 3)).to(backend.device)
    losses = losses_of(gfl_loss, inputs)
    once = gradients(losses_of(gfl_loss, inputs), inputs)
    total = sum(factor * loss for factor, loss in zip(UPSTREAM, losses, strict=True))
    for factor in (1.0, 3.0, 0.5):
        (factor * total).backward(retain_graph=True)
    for x, gradient in zip(inputs.maps, once, strict=True):
        torch.testing.assert_close(x.grad, 4.5 * gradient, rtol=1e-5, atol=1e-9)


def test_a_zero_gradient_is_zero(backend) -> None:
    inputs = head(31, (7, 3)).to(backend.device)
    assert not any(g.any() for g in gradients(losses_of(gfl_loss, inputs), inputs, (0.0, 0.0, 0.0)))


def test_each_loss_alone(backend) -> None:
    inputs = head(31, (7, 3)).to(backend.device)
    for i in range(3):
        upstream = [float(i == j) for j in range(3)]
        maps = inputs.cls_scores if i == 0 else inputs.bbox_preds
        alone = torch.autograd.grad(losses_of(gfl_loss, inputs)[i], maps)
        expected = gradients(losses_of(gfl_loss, inputs), inputs, upstream)
        assert all(map(torch.equal, alone, expected[:5] if i == 0 else expected[5:]))


def test_losses_may_be_changed_in_place(backend) -> None:
    inputs = head(31, (7, 3)).to(backend.device)
    result = gfl_loss(inputs.cls_scores, inputs.bbox_preds, inputs.targets)
    for name, factor in zip(LOSSES, UPSTREAM, strict=True):
        result[name] *= factor
    got = torch.autograd.grad(sum(result[name] for name in LOSSES), inputs.maps)
    expected = gradients(losses_of(gfl_loss, inputs), inputs)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-9)


def test_without_gradient(backend) -> None:
    inputs = head(31, (7, 3)).to(backend.device)
    with torch.no_grad():
        losses = losses_of(gfl_loss, inputs)
    assert not any(loss.requires_grad for loss in losses)
    torch.testing.assert_close(losses, tuple(x.detach() for x in losses_of(gfl_loss, inputs)), rtol=1e-6, atol=0)


@native_backends
def test_a_second_derivative_is_an_error(backend) -> None:
    inputs = head(31, (3,)).to(backend.device)
    for i, maps in ((0, inputs.cls_scores), (1, inputs.bbox_preds)):
        loss = losses_of(gfl_loss, inputs)[i]
        (gradient, *_) = torch.autograd.grad(loss, maps, create_graph=True)
        with pytest.raises(RuntimeError, match="gfl_loss: a second derivative is not implemented"):
            gradient.sum().backward()


def test_extreme_logits(backend) -> None:
    for value in (1e4, -1e4, torch.inf, -torch.inf):
        inputs = head(32, (5,)).to(backend.device)
        for x in inputs.maps:
            x.data[:, ::2, ::3] = value
        losses = losses_of(gfl_loss, inputs)
        assert not any(loss.isnan() for loss in losses)
        assert abs(value) == torch.inf or all(loss.isfinite() for loss in losses)
        assert all(gradient.isfinite().all() for gradient in gradients(losses, inputs))


# ---- how it runs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=lambda d: str(d)[6:])
def test_the_same_bits_at_any_number_of_threads(dtype: torch.dtype, needs_native) -> None:
    inputs = head(41, (20, 40), (400, 500), classes=20).map(lambda x: x.to(dtype))
    before, bits = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            losses = losses_of(gfl_loss, inputs)
            bits.append([*losses, *gradients(losses, inputs)])
    finally:
        torch.set_num_threads(before)
    for other in bits[1:]:
        assert all(map(torch.equal, other, bits[0]))


@with_raw_ops
def test_opcheck(backend) -> None:
    inputs = head(42, (3, 1), (64, 64))
    seen = set()
    for dtype in (torch.float32, torch.bfloat16):
        recorder = RecordRawOps()
        with recorder:
            typed = inputs.map(lambda x, dtype=dtype: x.to(dtype))
            gradients(losses_of(gfl_loss, typed), typed)
        seen |= {op.name().split("::")[1].split(".")[0] for op, _, _ in recorder.calls}
        for op, args, kwargs in recorder.calls:
            torch.library.opcheck(op, args, kwargs)
    prefix = "triton_" if backend.name == "triton" else ""
    assert seen >= {prefix + name for name in OF_THE_WHOLE_LOSS}


@compiled_backends
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=lambda d: str(d)[6:])
def test_compile_as_one_graph(dtype: torch.dtype, backend) -> None:
    inputs = head(43, (3, 1), (64, 96)).to(backend.device).map(lambda x: x.to(dtype))
    expected = losses_of(gfl_loss, inputs)
    torch._dynamo.reset()
    compiled = torch.compile(lambda h: losses_of(gfl_loss, h), fullgraph=True)
    losses = compiled(inputs)
    assert all(map(torch.equal, losses, expected))
    for got, value in zip(gradients(losses, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(got, value)


@cpu_backends
def test_nothing_waits_for_the_device(backend) -> None:
    """Meta tensors have no values: whoever reads one on the host raises."""
    inputs = head(44, (3, 1), (64, 64)).to("meta")
    losses = losses_of(gfl_loss, inputs)
    assert all(loss.is_meta for loss in losses)
    assert all(gradient.is_meta for gradient in gradients(losses, inputs))


@cpu_backends
def test_two_ranks_are_one_batch(backend, tmp_path: Path) -> None:
    if not torch.distributed.is_available():
        pytest.skip("this torch has no torch.distributed")
    ranks = [
        subprocess.Popen(
            support_program("rank_probe", rank, tmp_path / "store", backend.name),
            env=environment(OMP_NUM_THREADS="1"),
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    found = [json.loads(rank.communicate(timeout=120)[0].splitlines()[-1]) for rank in ranks]
    inputs = head(45, (9, 2), dtype=torch.float64)
    losses = losses_of(gfl_loss, inputs)
    for i, loss in enumerate(losses):
        torch.testing.assert_close((found[0]["losses"][i] + found[1]["losses"][i]) / 2, loss.item(), rtol=1e-7, atol=0)
    for i, gradient in enumerate(gradients(losses, inputs)):
        sums = gradient.abs().sum((1, 2, 3))
        for rank in range(2):  # what DDP's average leaves of a rank's own images
            torch.testing.assert_close(found[rank]["gradients"][i] / 2, sums[rank].item(), rtol=1e-7, atol=1e-12)


def test_module(backend) -> None:
    inputs = head(51, (6, 6), classes=3, bins=8, valid=0.8).to(backend.device)
    options = {"beta": 1.0, "loss_weights": (2.0, 1.0, 0.5), "topk": 5, "iou_kind": "ciou", "center_offset": 0.5}
    options |= {"eps_rule": "add", "alpha_rule": "always"}
    module = GFLLoss(3, reg_max=7, **options)
    result = module(inputs.cls_scores, inputs.bbox_preds, inputs.targets, inputs.valid_shapes)
    expected = losses_of(gfl_loss, inputs, **options)
    assert all(torch.equal(result[name], value) for name, value in zip(LOSSES, expected, strict=True))
    assert "num_classes=3, reg_max=7" in repr(module)
    with pytest.raises(ValueError, match=r"GFLLoss: bbox_preds\[0\] must have 68 channels, got \(2, 32, 20, 28\)"):
        GFLLoss(3)(inputs.cls_scores, inputs.bbox_preds, inputs.targets)
