"""Heads of every family: what they learn and find from given maps, against mmdet and against each other."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import gfl_ops
from gfl_ops import detector
from gfl_ops.detector import heads
from tests.support import head_maps
from tests.support.head_maps import CASES, CLASSES, NAMES, SCALE, case_of

MMDET = json.loads(gzip.decompress((Path(__file__).parent / "data" / "mmdet_head_losses.json.gz").read_bytes()))
WIDTHS = {"ssd512": (512, 1024, 512, 256, 256, 256, 256)}


def build(name: str, **parts: Any) -> heads.DenseHead:
    torch.manual_seed(0)
    config = replace(detector.get_config(name).head, **parts)
    if name not in WIDTHS:
        config = replace(config, towers=replace(config.towers, feat_channels=16, stacked_convs=1, norm_groups=None))
    return heads.DenseHead(config, CLASSES, WIDTHS.get(name, (16,) * 5))


def learned(head: heads.DenseHead, case: head_maps.Case, how: str = "loss") -> dict[str, Any]:
    leaves = {kind: [x.clone().requires_grad_() for x in levels] for kind, levels in case.maps().items()}
    losses, _ = getattr(head, how)(head.outputs(**leaves), case.targets, case.padded_shapes)
    sum(losses.values()).backward()
    gradients = {
        kind: [torch.zeros_like(x) if x.grad is None else x.grad for x in levels] for kind, levels in leaves.items()
    }
    return {"losses": losses, "gradients": gradients}


def found(head: heads.DenseHead, name: str, case: head_maps.Case, how: str = "detect") -> list[dict[str, Tensor]]:
    factors = torch.tensor(SCALE).expand(2, 2)
    config = detector.get_config(name).postprocess
    return getattr(head, how)(head.outputs(**case.maps()), case.image_shapes, factors, config)


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_losses_and_gradients_are_those_of_mmdet(name: str, kind: str) -> None:
    """What mmdet 3.3.0's ``loss_by_feat`` gave for the same maps, in float32."""
    got = head_maps.figures(**learned(build(name), case_of(name, kind)))
    expected = MMDET["cases"][f"{name} {kind}"]
    assert got["losses"] == pytest.approx(expected["losses"], rel=1e-5)
    for maps, levels in expected["gradients"].items():
        for mine, theirs in zip(got["gradients"][maps], levels, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_detections_are_those_of_mmdet(name: str, kind: str) -> None:
    """Of its ``predict_by_feat``: how many an image has, and the first 25."""
    expected = MMDET["cases"][f"{name} {kind}"]["detections"]
    for mine, theirs in zip(found(build(name), name, case_of(name, kind)), expected, strict=True):
        assert len(mine["boxes"]) == theirs["count"] and mine["labels"][:25].tolist() == theirs["labels"]
        torch.testing.assert_close(mine["scores"][:25], torch.tensor(theirs["scores"]), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(mine["boxes"][:25], torch.tensor(theirs["boxes"]), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("kind", CASES)
def test_the_fast_path_of_gfl_is_the_sum_of_its_parts(kind: str) -> None:
    head, case = build("gfl_r50_fpn"), case_of("gfl_r50_fpn", kind)
    assert head.criterion is not None
    fast, parts = learned(head, case), learned(head, case, "composed_loss")
    torch.testing.assert_close(fast["losses"], parts["losses"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(fast["gradients"], parts["gradients"], rtol=1e-4, atol=1e-7)
    for fast_one, one in zip(
        found(head, "gfl_r50_fpn", case), found(head, "gfl_r50_fpn", case, "composed_detect"), strict=True
    ):
        torch.testing.assert_close(fast_one, one, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"quality": heads.Joint(weighs_boxes=False)},
        {"boxes": heads.Distribution(unit=2.0)},
        {"boxes": heads.Distribution(dfl_weight=None)},
        {"quality": heads.ClassOnly()},
        {"divisors": heads.Divisors("batch")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_parts_leave_the_fast_path(change: dict[str, Any]) -> None:
    assert build("gfl_r50_fpn", **change).criterion is None


# ---- GFLv2 -------------------------------------------------------------------------------------------------


def gflv2_oracle(head: heads.DenseHead, logits: Tensor, edges: Tensor) -> Tensor:
    """The scores of one level, location by location, from the paper's figure 3."""
    weight = [p.flatten(1) if p.ndim == 4 else p for p in head.get_submodule("reg_conf").parameters()]
    p = edges.permute(0, 2, 3, 1).unflatten(-1, (4, 17)).softmax(-1).sort(-1, descending=True).values[..., :4]
    shape = torch.cat([p, p.mean(-1, keepdim=True)], -1).flatten(-2)
    quality = ((shape @ weight[0].T + weight[1]).relu() @ weight[2].T + weight[3]).sigmoid()
    return logits.sigmoid() * quality.permute(0, 3, 1, 2)


def test_gflv2s_scores_are_class_times_quality() -> None:
    head = build("gflv2_r50_fpn").double()
    for parameter in head.get_submodule("reg_conf").parameters():
        nn.init.normal_(parameter)
    levels = [torch.randn(2, 16, 4, 6, dtype=torch.float64)] * 5
    outputs = head(levels)
    logits = head.get_submodule("gfl_cls")(head.get_submodule("cls_convs")(levels[0]))
    expected = gflv2_oracle(head, logits, outputs.bbox_preds[0])
    assert logits.shape[1] == CLASSES + 1
    torch.testing.assert_close(outputs.cls_scores[0], expected, rtol=1e-12, atol=1e-12)


def test_gflv2s_loss_by_hand() -> None:
    """Quality focal loss of probabilities over all classes and the one beyond them; boxes weighted by the highest."""
    head, case = build("gflv2_r50_fpn"), case_of("gfl_r50_fpn", "many")
    p = [torch.cat([x, x[:, :1]], 1).sigmoid().requires_grad_() for x in case.cls_scores]
    outputs = head.outputs(cls_scores=p, bbox_preds=case.bbox_preds)
    learning = head._learning(outputs, case.targets, case.padded_shapes)
    losses, figures = head.loss(outputs, case.targets, case.padded_shapes)

    scores, positive = learning.scores, learning.positive
    wanted = torch.zeros_like(scores)
    wanted[positive, learning.labels[positive]] = learning.iou[positive]
    each = functional.binary_cross_entropy(scores, wanted, reduction="none") * (wanted - scores).abs() ** 2
    expected = (each.sum(-1) * (learning.labels != -2)).sum() / figures["avg_factor"]
    torch.testing.assert_close(losses["loss_cls"], expected, rtol=1e-5, atol=0)

    weight = scores.detach().amax(-1)[positive]
    giou = gfl_ops.giou_loss(learning.boxes[positive], learning.gt_boxes[positive], weight, 1e-6, "sum")
    torch.testing.assert_close(losses["loss_bbox"], 2 * giou / weight.sum().clamp(min=1), rtol=1e-5, atol=0)


def test_gflv2_finds_no_class_beyond_those_there_are() -> None:
    head, case = build("gflv2_r50_fpn"), case_of("gfl_r50_fpn", "many")
    p = [torch.cat([x.sigmoid() / 2, torch.ones_like(x[:, :1])], 1) for x in case.cls_scores]
    factors = torch.tensor(SCALE).expand(2, 2)
    config = detector.get_config("gflv2_r50_fpn").postprocess
    outputs = head.outputs(cls_scores=p, bbox_preds=case.bbox_preds)
    for one in head.detect(outputs, case.image_shapes, factors, config, with_edges=True):
        assert len(one["labels"]) == 100 and one["labels"].max() < CLASSES
        assert one["edges"].shape == (100, 4, 17) and one["edge_std"].shape == (100, 4)


def test_its_edges_are_those_of_postprocess() -> None:
    case = case_of("gfl_r50_fpn", "few")
    head, v2 = build("gfl_r50_fpn"), build("gflv2_r50_fpn", quality=heads.JointFromDistribution(extra_class=False))
    config, factors = detector.get_config("gfl_r50_fpn").postprocess, torch.tensor(SCALE).expand(2, 2)
    same = v2.outputs([x.sigmoid() for x in case.cls_scores], case.bbox_preds)
    ours = head.detect(head.outputs(**case.maps()), case.image_shapes, factors, config, with_edges=True)
    for one, other in zip(ours, v2.detect(same, case.image_shapes, factors, config, with_edges=True), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


# ---- combinations --------------------------------------------------------------------------------------------


def test_a_distributions_statistics_want_a_distribution() -> None:
    with pytest.raises(
        ValueError, match="quality JointFromDistribution needs boxes that are distributions, got Deltas"
    ):
        build("atss_r50_fpn", quality=heads.JointFromDistribution())
    with pytest.raises(ValueError, match="topk must be at most the 3 bins of an edge, got 4"):
        build("gflv2_r50_fpn", boxes=heads.Distribution(reg_max=2))


def test_edges_are_refused_where_there_are_none() -> None:
    head, case = build("atss_r50_fpn"), case_of("atss_r50_fpn", "few")
    config = detector.get_config("atss_r50_fpn").postprocess
    with pytest.raises(ValueError, match="with_edges must be False, got True"):
        head.detect(head.outputs(**case.maps()), case.image_shapes, torch.ones(2, 2), config, with_edges=True)


QUALITIES = [
    heads.ClassOnly(),
    heads.Centerness(),
    heads.IoUBranch(least_weight=0.1),
    heads.CenternessGuided(),
    heads.IoUGuided(least_weight=0.1),
    heads.Joint(),
]
BOXES = [
    heads.Distances(),
    heads.Deltas(),
    heads.Gaussian("relu"),
    heads.Distribution(dfl_weight=None),
    heads.Distribution(),
    heads.Distribution(reg_max=12, unit=0.5),
]


@pytest.mark.parametrize("boxes", BOXES, ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("quality", QUALITIES, ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("name", ["fcos_r50_fpn", "atss_r50_fpn"])
def test_every_quality_goes_with_every_kind_of_box(name: str, quality: Any, boxes: Any) -> None:
    """Losses are finite and fall (a joint one may rise again, as its targets do), and what is predicted is detected."""
    head = build(name, quality=quality, boxes=boxes)
    size = torch.tensor([[96.0, 128.0]])
    levels = [torch.randn(1, 16, -(-96 // s), -(-128 // s)) for s in head.strides]
    targets = [{"boxes": torch.tensor([[8.0, 12, 60, 70], [50, 30, 120, 90]]), "labels": torch.tensor([1, 4])}]
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    totals = []
    for _ in range(30):
        losses, _ = head.loss(head(levels), targets, size)
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert torch.tensor(totals).isfinite().all() and min(totals) < 0.98 * totals[0]
    config = replace(detector.get_config(name).postprocess, score_thr=0.0)
    with torch.no_grad():
        outputs = head(levels)
        for one in head.detect(outputs, size, torch.ones(1, 2), config):
            assert len(one["boxes"]) > 0 and one["boxes"].isfinite().all()
        boxes_of_all, scores = head.decode(outputs)
    assert boxes_of_all.shape[:2] == scores.shape[:2] and scores.shape[2] == CLASSES
