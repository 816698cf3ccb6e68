"""The detector's network: names and numbers are those of the models that people have weights for.

Networks are compared in float64. In float32 their outputs depend on the convolutions that torch has for a processor.
"""

from __future__ import annotations

import functools
import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gfl_ops import detector
from tests.support.models import small
from tests.support.rule_weights import fill_by_name, rule_input, sampled

DATA = Path(__file__).parent / "data"
KEYS = json.loads(gzip.decompress((DATA / "checkpoint_keys.json.gz").read_bytes()))
MMDET = json.loads((DATA / "mmdet_head_outputs.json").read_text())["outputs"]


@functools.cache
def lite() -> detector.Detector:
    torch.manual_seed(0)
    return detector.build("gfl_r18_fpn_lite", num_classes=3).eval()


@pytest.mark.parametrize("name", KEYS)
def test_names_and_shapes_are_those_of_published_checkpoints(name: str) -> None:
    model = detector.build(name)
    assert {key: list(x.shape) for key, x in model.state_dict().items()} == KEYS[name]["tensors"]
    assert sum(p.numel() for p in model.parameters()) == KEYS[name]["num_params"]


@pytest.mark.parametrize("name", MMDET)
def test_outputs_are_those_of_mmdet(name: str) -> None:
    """Weights and input follow from the parameters' names; mmdet 3.3.0 computed the expected values from the same, in
    float32, whose rounding is what the bound allows."""
    model = detector.build(name).eval()
    fill_by_name(model)
    model.double()
    size = model.config.input.fixed_size
    x = rule_input() if size is None else functional.interpolate(rule_input(), size=size, mode="bilinear")
    with torch.no_grad():
        outputs = model.raw(x.double())
    got = [torch.tensor([sampled(level) for level in kind if level.numel() >= 12]) for kind in outputs]
    expected = [torch.tensor([level for level in kind if len(level) >= 12]) for kind in MMDET[name]]
    assert len(got) == len(expected)
    for kind, reference in zip(got, expected, strict=True):
        largest = max(float(reference.abs().max()), 1.0)  # without normalisations the values grow
        torch.testing.assert_close(kind, reference, rtol=0, atol=1e-5 * largest, check_dtype=False)


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (33, 200), (1, 1), (127, 31)])
@pytest.mark.parametrize("name", ["gfl_r50_fpn", "atss_r50_fpn"])
def test_level_sizes_for_any_input_size(name: str, size: tuple[int, int]) -> None:
    model = detector.build(small(name), num_classes=5).eval()
    with torch.no_grad():
        outputs = model.raw(torch.randn(2, 3, *size))
    channels = {"cls_scores": 5, "bbox_preds": 68 if name.startswith("gfl") else 4, "centernesses": 1}
    for kind, levels in outputs._asdict().items():
        shapes = [(2, channels[kind], -(-size[0] // stride), -(-size[1] // stride)) for stride in (8, 16, 32, 64, 128)]
        assert [tuple(level.shape) for level in levels] == shapes


def test_resnet34_has_torchvisions_parameters() -> None:
    config = replace(detector.get_config("gfl_r50_fpn"), backbone=detector.ResNetConfig(34))
    backbone = detector.build(config).backbone
    assert sum(p.numel() for p in backbone.parameters()) == 21_284_672
    assert backbone.out_channels == (64, 128, 256, 512)


def test_frozen_stages_and_statistics_survive_train() -> None:
    model = detector.build(small("gfl_r50_fpn"), num_classes=2).train()
    names = {name for name, p in model.named_parameters() if not p.requires_grad}
    frozen = ("backbone.conv1", "backbone.bn1", "backbone.layer1")
    assert names == {name for name, _ in model.named_parameters() if name.startswith(frozen)}
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and not any(module.training for module in norms)
    assert model.bbox_head.training and not model.backbone.layer1.training

    free = detector.build(small("gfl_r50_fpn").from_scratch(), num_classes=2).train()
    assert all(p.requires_grad for p in free.parameters())
    assert all(module.training for module in free.modules())


def gradients(model: detector.Detector, x: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    sum(level.square().mean() for kind in model.raw(x) for level in kind).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_checkpointing_changes_no_gradient() -> None:
    torch.manual_seed(0)
    model = detector.build(small("gfl_r50_fpn"), num_classes=2).double().train()
    saving = detector.build(model.config, num_classes=2, checkpointing=True).double().train()
    saving.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    expected = gradients(model, x)
    got = gradients(saving, x)
    assert got.keys() == expected.keys()
    for name, gradient in got.items():
        torch.testing.assert_close(gradient, expected[name])


def test_channels_last_flows_through() -> None:
    model = detector.build(small("gfl_r50_fpn"), num_classes=2).eval()
    fill_by_name(model)
    model.double()
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        expected = model.raw(x)
        got = model.to(memory_format=torch.channels_last).raw(x.contiguous(memory_format=torch.channels_last))
    for kind, reference in zip(got, expected, strict=True):
        for level, other in zip(kind, reference, strict=True):
            torch.testing.assert_close(level, other, rtol=1e-10, atol=1e-10)
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in got.cls_scores)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types(dtype: torch.dtype) -> None:
    model = detector.build(small("gfl_r50_fpn"), num_classes=2).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model.raw(x)
        with torch.autocast("cpu", dtype):
            autocast = model.raw(x)
        half = model.to(dtype).raw(x.to(dtype))
    for outputs in (autocast, half):
        for kind, reference in zip(outputs, expected, strict=True):
            for level, other in zip(kind, reference, strict=True):
                assert level.dtype == dtype
                torch.testing.assert_close(level.float(), other, rtol=0.1, atol=0.1)


def test_training_starts_as_mmdets_does() -> None:
    """Its initialisation: every class at a probability of 0.01, the head's weights small, each block an identity."""
    torch.manual_seed(0)
    model = detector.build("gfl_r50_fpn")
    weights = dict(model.named_parameters())
    assert weights["bbox_head.gfl_cls.bias"].sigmoid().allclose(torch.tensor(0.01))
    assert weights["bbox_head.gfl_reg.bias"].eq(0).all() and weights["neck.fpn_convs.0.conv.bias"].eq(0).all()
    assert weights["backbone.layer2.1.bn3.weight"].eq(0).all() and weights["backbone.layer2.1.bn2.weight"].eq(1).all()

    def spread(name: str) -> float:
        return weights[name].std().item()

    assert spread("bbox_head.cls_convs.2.conv.weight") == pytest.approx(0.01, rel=0.01)
    assert spread("bbox_head.gfl_reg.weight") == pytest.approx(0.01, rel=0.01)
    assert spread("neck.fpn_convs.1.conv.weight") == pytest.approx((2 / (2 * 9 * 256)) ** 0.5, rel=0.01)
    assert spread("backbone.layer3.2.conv2.weight") == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)


def test_fold_batchnorm_keeps_the_outputs() -> None:
    model = detector.build(small("gfl_x101-32x4d", groups=4, depth=50), num_classes=2).eval()
    fill_by_name(model)
    model.double()
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    folded = detector.fold_batchnorm(model)
    with torch.no_grad():
        for kind, reference in zip(folded.raw(x), model.raw(x), strict=True):
            for level, other in zip(kind, reference, strict=True):
                torch.testing.assert_close(level, other, rtol=1e-10, atol=1e-10)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_zoo_states_recipes_and_published_figures() -> None:
    published = {name: config.published for name in detector.list_models() if (config := detector.get_config(name))}
    assert {name: figure.ap for name, figure in published.items() if figure} == {
        "gfl_r50_fpn": 40.2,
        "gfl_r50_fpn_ms2x": 42.9,
        "gfl_r101_fpn": 44.7,
        "gfl_x101-32x4d": 45.9,
        "gflv2_r50_fpn": 41.0,
        "gflv2_r50_fpn_ms2x": 43.9,
        "gflv2_r101_fpn": 45.8,
        "atss_r50_fpn": 39.4,
        "atss_r101_fpn": 41.5,
        "fcos_r50-caffe_fpn_gn-head": 36.6,
        "fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou": 38.7,
        "retinanet_r50_fpn": 36.5,
        "retinanet_r101_fpn": 38.5,
        "fovea_r50_fpn": 36.5,
        "fovea_r50_fpn_gn-head-align": 37.9,
        "ssd512": 29.5,
    }
    assert detector.get_config("gfl_r50_fpn").recipe == detector.Recipe(
        epochs=12,
        milestones=(8, 11),
        learning_rate=0.01,
        batch_size=16,
        momentum=0.9,
        weight_decay=1e-4,
        warmup_iterations=500,
        warmup_factor=0.001,
        flip=0.5,
    )
    twice = detector.get_config("gfl_r101_fpn")
    assert (twice.recipe.epochs, twice.recipe.milestones) == (24, (16, 22))
    assert twice.input.train_short_sides == (480, 800)


def test_unknown_names_and_parts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got 'gfl_r50_fnp'; did you mean gfl_r50_fpn\?"):
        detector.build("gfl_r50_fnp")
    with pytest.raises(ValueError, match=r"num_classes must be a whole number from 1, got 0"):
        detector.build("gfl_r18_fpn_lite", num_classes=0)
    with pytest.raises(ValueError, match=r"depth must be one of 18, 34, 50, 101, got 42"):
        detector.build(small("gfl_r50_fpn", depth=42))
    with pytest.raises(TypeError, match="head must be a HeadConfig, got FPNConfig"):
        detector.build(replace(detector.get_config("gfl_r50_fpn"), head=detector.FPNConfig()))  # type: ignore[arg-type]
