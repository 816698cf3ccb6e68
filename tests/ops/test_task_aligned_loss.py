"""task_aligned_loss and its stages: the reference against the loss written out, the kernels against the reference, and
ultralytics' loss where it is installed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import gfl_ops
from gfl_ops import PaddedTargets, box_loss_maps, class_loss_maps, decode_maps, task_aligned_assign, task_aligned_loss
from tests.support import task_aligned_oracle
from tests.support.assignment_inputs import STRIDES, level_shapes, random_gts
from tests.support.backends import only_backends
from tests.support.case_maker import channels_last, contiguous, strided_cols
from tests.support.raw_ops import raw_op

WITHOUT_TRITON = True
LOSSES = ("loss_cls", "loss_bbox", "loss_dfl")
YOLO = {"topk": 10, "alpha": 0.5, "min_side": 16.0, "iou": "ciou"}
CIOU = {"kind": "ciou", "eps": 1e-7, "eps_rule": "add", "alpha_rule": "always"}
GIOU = {"kind": "giou", "eps": 1e-7, "eps_rule": "add"}
PP = {"topk": 13, "alpha": 1.0, "min_side": 0.0, "assign_iou": "iou", "iou_kind": "giou"}
# The call, and what the oracle is told of it.
FORMS: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "yolo11": (16, {}, {"assign": YOLO, "iou": CIOU}),
    "yolo26": (1, {}, {"assign": YOLO, "iou": CIOU}),
    "yolo26-one-to-one": (
        1,
        {"topk": 7, "final_topk": 1},
        {"assign": YOLO | {"topk": 7, "final_topk": 1}, "iou": CIOU},
    ),
    "pp-yoloe": (
        17,
        PP | {"class_loss": "varifocal"},
        {"assign": {"topk": 13}, "iou": GIOU, "class_loss": "varifocal"},
    ),
    "tood": (
        1,
        PP | {"inside_first": False, "class_loss": "quality_focal", "loss_weights": (1.0, 2.0, 0.0)},
        {
            "assign": {"topk": 13, "inside_first": False},
            "iou": GIOU,
            "class_loss": "quality_focal",
            "weights": (1.0, 2.0, 0.0),
        },
    ),
}
forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
native_backends = only_backends(without=("reference",))
Head = tuple[list[Tensor], list[Tensor], list[dict[str, Tensor]]]


def random_head(
    gts: tuple[int, ...], bins: int, *, size: int = 96, dtype: torch.dtype = torch.float32, layout: Any = contiguous
) -> Head:
    """Of five classes. Many boxes are good ones, as those of a trained head."""
    generator = torch.Generator().manual_seed(sum(gts) + bins)
    targets = []
    for kind, count in zip(("usual", "tiny", "outside", "duplicates"), gts, strict=False):
        boxes = random_gts(generator, 1, count, size, kind)[0].to(dtype)
        targets.append({"boxes": boxes, "labels": torch.randint(5, (count,), generator=generator)})
    maps: tuple[list[Tensor], list[Tensor]] = ([], [])
    for height, width in level_shapes(size):
        scores = torch.randn(len(gts), 5, height, width, generator=generator) * 2 - 1
        edges = torch.randn(len(gts), 4 * bins, height, width, generator=generator) * (2 if bins > 1 else 1)
        maps[0].append(layout(scores.to(dtype)))
        maps[1].append(layout((edges if bins > 1 else edges.exp()).to(dtype)))
    return (*maps, targets)


def losses_and_gradients(
    head: Head, loss: Any = task_aligned_loss, **options: Any
) -> tuple[list[Tensor], list[Tensor]]:
    cls_scores, bbox_preds, targets = head
    leaves = [x.detach().requires_grad_() for x in (*cls_scores, *bbox_preds)]
    found = loss(leaves[: len(cls_scores)], leaves[len(cls_scores) :], targets, **options)
    losses = [found[name] for name in LOSSES] if isinstance(found, dict) else found
    # Each with a factor of its own, so that none takes another's gradient.
    grads = torch.autograd.grad(losses[0] + 0.5 * losses[1] + 3.0 * losses[2], leaves)
    return [x.detach() for x in losses], list(grads)


def assert_same(got: Any, expected: Any, rtol: float) -> None:
    for ours, theirs in zip(got[0], expected[0], strict=True):
        torch.testing.assert_close(ours.cpu(), theirs.to(ours.dtype).cpu(), rtol=rtol, atol=rtol)
    for ours, theirs in zip(got[1], expected[1], strict=True):
        most = max(float(theirs.abs().max()) if theirs.numel() else 0.0, 1e-6)
        torch.testing.assert_close(ours.cpu(), theirs.to(ours.dtype).cpu(), rtol=rtol, atol=rtol * most)


def moved(head: Head, device: str) -> Head:
    maps = ([x.to(device) for x in maps] for maps in head[:2])
    return (*maps, [{name: x.to(device) for name, x in target.items()} for target in head[2]])  # type: ignore[return-value]


@forms
def test_the_reference_is_the_loss_written_out(form: Any) -> None:
    bins, options, told = form
    head = random_head((6, 4, 0), bins, size=64, dtype=torch.float64)
    with gfl_ops.use_backend("reference"):
        found = losses_and_gradients(head, **options)
    expected = losses_and_gradients(head, task_aligned_oracle.task_aligned_loss, strides=STRIDES, **told)
    assert_same(found, expected, 1e-9)
    assert all(x > 0 for x in found[0][:2])


@forms
@native_backends
def test_native_is_the_reference(form: Any, backend) -> None:
    bins, options, _ = form
    for dtype, rtol in ((torch.float64, 1e-11), (torch.float32, 1e-4)):
        head = random_head((9, 7, 5, 6), bins, dtype=dtype)
        with gfl_ops.use_backend("reference"):
            expected = losses_and_gradients(head, **options)
        assert_same(losses_and_gradients(moved(head, backend.device), **options), expected, rtol)


@pytest.mark.parametrize("layout", [channels_last, strided_cols])
@pytest.mark.parametrize("bins", [16, 1])
@native_backends
def test_layouts_and_padded_targets(bins: int, layout: Any, backend) -> None:
    head = moved(random_head((9, 0, 5), bins), backend.device)
    expected = losses_and_gradients(head)
    assert_same(
        losses_and_gradients(([layout(x) for x in head[0]], [layout(x) for x in head[1]], head[2])), expected, 1e-6
    )
    boxes, labels = torch.zeros(3, 9, 4), torch.zeros(3, 9, dtype=torch.int64)
    for image, target in enumerate(head[2]):
        count = len(target["labels"])
        boxes[image, :count], labels[image, :count] = target["boxes"].cpu(), target["labels"].cpu()
    padded = PaddedTargets(boxes, labels, torch.tensor([9, 0, 5]))
    assert_same(
        losses_and_gradients((*head[:2], PaddedTargets(*(x.to(backend.device) for x in padded)))), expected, 1e-6
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@native_backends
def test_half_types_are_computed_in_float32(dtype: torch.dtype, backend) -> None:
    scores, edges, targets = moved(random_head((9, 3), 16), backend.device)
    half = [x.to(dtype) for x in scores], [x.to(dtype) for x in edges], targets
    wide = [x.float() for x in half[0]], [x.float() for x in half[1]], targets
    losses, grads = losses_and_gradients(half)
    expected = losses_and_gradients(wide)
    assert_same((losses, []), (expected[0], []), 1e-6)
    assert_same(([], grads), ([], expected[1]), torch.finfo(dtype).eps)


@pytest.mark.parametrize("bins", [16, 1])
def test_the_stages_one_by_one_are_the_whole(bins: int, backend) -> None:
    scores, edges, targets = moved(random_head((9, 7, 5), bins), backend.device)
    whole = task_aligned_loss(scores, edges, targets)
    most = max(len(target["labels"]) for target in targets)
    gt_boxes, gt_labels = torch.zeros(3, most, 4), torch.full((3, most), -1)
    for image, target in enumerate(targets):
        gt_boxes[image, : len(target["labels"])] = target["boxes"].cpu()
        gt_labels[image, : len(target["labels"])] = target["labels"].cpu()
    gt_boxes, gt_labels = gt_boxes.to(backend.device), gt_labels.to(backend.device)
    boxes, points = decode_maps(edges, strides=STRIDES)
    found = task_aligned_assign(scores, boxes, points, gt_boxes, gt_labels, logits=True, strides=STRIDES, **YOLO)
    total = found.assigned_score.sum()
    loss_cls = class_loss_maps(scores, found.assigned_label, found.assigned_score, avg_factor=total.clamp(min=1))
    for avg_factor in (None, total, float(total)):
        box = box_loss_maps(edges, found.assigned_gt, gt_boxes, found.assigned_score, avg_factor, strides=STRIDES)
        losses = 0.5 * loss_cls, 7.5 * box.loss_bbox, 1.5 * box.loss_dfl
        torch.testing.assert_close(losses, tuple(whole[name] for name in LOSSES), rtol=1e-6, atol=1e-7)
    assert whole["num_pos"] == (found.assigned_gt >= 0).sum() > 0
    torch.testing.assert_close(whole["mean_quality"], box.quality.sum() / whole["num_pos"])
    halved = box_loss_maps(edges, found.assigned_gt, gt_boxes, found.assigned_score, 0.25, strides=STRIDES)
    torch.testing.assert_close(halved.loss_bbox, box.loss_bbox * total.clamp(min=1))  # below 1 counts as 1


@native_backends
def test_the_assigner_reads_maps_where_they_lie(backend) -> None:
    scores, edges, targets = moved(random_head((9, 9), 16), backend.device)
    boxes, points = decode_maps(edges, strides=STRIDES)
    gts = torch.stack([target["boxes"] for target in targets]), torch.stack([target["labels"] for target in targets])
    together = torch.cat([x.flatten(2) for x in scores], 2).mT
    expected = task_aligned_assign(together, boxes, points, *gts, logits=True)
    shown = expected.assigned_gt.long().clamp(min=0)
    assert torch.equal(
        expected.assigned_label, torch.where(expected.assigned_gt >= 0, gts[1].gather(1, shown), -1).int()
    )
    for layout in (contiguous, channels_last, strided_cols):
        maps = [layout(x) for x in scores]
        found = task_aligned_assign(maps, boxes, points, *gts, logits=True, strides=STRIDES)
        assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("bins", [1, 2, 16, 17, 40])
@native_backends
def test_decoded_maps(bins: int, backend) -> None:
    for dtype, slack in ((torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-5)):
        edges = random_head((0, 0), bins, dtype=dtype)[1]
        if bins > 1:
            edges[0][0, : bins // 2, 0, 0] = torch.inf
            edges[1][0, 0, 0, 0] = -torch.inf
        with gfl_ops.use_backend("reference"):
            expected = decode_maps(edges, strides=STRIDES, center_offset=0.25)
        found = decode_maps([x.to(backend.device) for x in edges], strides=STRIDES, center_offset=0.25)
        for got, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(got.cpu(), wanted, rtol=slack, atol=100 * slack)
    boxes, points = decode_maps([x[:0].to(backend.device) for x in edges], strides=STRIDES, center_offset=0.25)
    assert boxes.shape[0] == 0
    assert torch.equal(points.cpu(), expected.points)


def test_nothing_to_learn(backend) -> None:
    """Without ground truths only the class loss remains, and all gradients are there."""
    for gts in ((0, 0), ()):
        for bins in (16, 1):
            head = moved(random_head(gts, bins), backend.device)
            losses, grads = losses_and_gradients(head)
            assert losses[1] == losses[2] == 0
            assert all(torch.isfinite(x).all() for x in (*losses, *grads))
            assert not any(x.any() for x in grads[3:])


@only_backends(without=("reference", "host_cuda"))
def test_gradients_that_arrive_scaled(backend) -> None:
    scores, edges, targets = moved(random_head((9, 3), 1), backend.device)
    leaves = [x.requires_grad_() for x in edges]
    result = task_aligned_loss(scores, leaves, targets)
    whole = torch.autograd.grad(2 * result["loss_bbox"] - 3 * result["loss_dfl"], leaves, retain_graph=True)
    parts = [torch.autograd.grad(result[name], leaves, retain_graph=True) for name in LOSSES[1:]]
    for got, bbox, dfl in zip(whole, *parts, strict=True):
        torch.testing.assert_close(got, 2 * bbox - 3 * dfl, rtol=1e-5, atol=1e-9)


def test_opcheck_and_compile(needs_native) -> None:
    scores, edges, targets = random_head((6, 3), 1, size=64)
    torch.library.opcheck(raw_op("decode_maps"), (edges, [8.0, 16.0, 32.0], 0.5))
    expected = task_aligned_loss(scores, edges, targets)
    compiled = torch.compile(lambda *maps: task_aligned_loss(maps[:3], maps[3:], targets), fullgraph=True)
    found = compiled(*scores, *edges)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_losses_do_not_depend_on_the_number_of_threads(needs_native) -> None:
    before, found = torch.get_num_threads(), []
    head = random_head((40, 30, 20), 16, size=320)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(losses_and_gradients(head))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(map(torch.equal, (*other[0], *other[1]), (*found[0][0], *found[0][1])))


MAPS = [torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 2, 2)], [torch.zeros(1, 64, 4, 4), torch.zeros(1, 64, 2, 2)]
BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"strides": (8, 16, 32)}, ValueError, "cls_scores must have one level for each of 3 strides, got 2"),
    ({"bbox_preds": [torch.zeros(1, 62, 4, 4)] * 2}, ValueError, "bbox_preds.1. must be"),
    ({"bbox_preds": [x[:, :62] for x in MAPS[1]]}, ValueError, "bbox_preds must have 4 . bins channels, got 62"),
    ({"topk": 0}, ValueError, "topk must be at least 1"),
    ({"final_topk": 300}, ValueError, "final_topk must be at most 256, got 300"),
    ({"alpha": -1}, ValueError, "alpha must be in"),
    ({"assign_iou": "giou"}, ValueError, "assign_iou must be one of 'iou', 'ciou', got 'giou'"),
    ({"class_loss": "sigmoid_focal"}, ValueError, "class_loss must be one of 'soft_bce', .* got 'sigmoid_focal'"),
    ({"iou_kind": "giou", "alpha_rule": "always"}, ValueError, "alpha_rule 'always' needs kind 'ciou'"),
    ({"loss_weights": (1.0, 2.0)}, ValueError, "loss_weights must be three numbers"),
    ({"average_over_ranks": None}, TypeError, "average_over_ranks must be True or False, got NoneType"),
    ({"targets": []}, ValueError, "targets must have one entry for each of 1 images, got 0"),
]


@pytest.mark.parametrize(("change", "error", "words"), BAD, ids=[f"{i}-{next(iter(b[0]))}" for i, b in enumerate(BAD)])
def test_errors(change: dict[str, Any], error: type[Exception], words: str) -> None:
    target = {"boxes": torch.tensor([[0.0, 0.0, 8.0, 8.0]]), "labels": torch.tensor([1])}
    good = {"cls_scores": MAPS[0], "bbox_preds": MAPS[1], "targets": [target], "strides": (8, 16)}
    with pytest.raises(error, match=f"task_aligned_loss: {words}"):
        task_aligned_loss(**(good | change))


STAGES_BAD: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (box_loss_maps, {"assigned_gt": torch.full((1, 20), 1)}, ValueError, "assigned_gt must be below G = 1, got 1"),
    (box_loss_maps, {"assigned_gt": torch.zeros(1, 19).long()}, ValueError, r"assigned_gt must be \(B, A\)"),
    (box_loss_maps, {"weights": torch.ones(20)}, ValueError, r"weights must be \(B, A\) = \(1, 20\), got \(20,\)"),
    (box_loss_maps, {"gt_boxes": torch.zeros(1, 4)}, ValueError, r"gt_boxes must be \(B, G, 4\)"),
    (box_loss_maps, {"avg_factor": torch.ones(2)}, ValueError, "avg_factor must be a number or one value"),
    (box_loss_maps, {"strides": 8}, TypeError, "strides must be a list of numbers"),
    (class_loss_maps, {"kind": "focal"}, ValueError, "kind must be one of 'soft_bce', .* got 'focal'"),
    (class_loss_maps, {"scores": None}, ValueError, "scores must be a tensor for kind 'soft_bce'"),
    (class_loss_maps, {"kind": "sigmoid_focal"}, ValueError, "scores must be None for kind 'sigmoid_focal'"),
    (class_loss_maps, {"gamma": -1.0}, ValueError, "gamma must be at least 0"),
    (decode_maps, {"center_offset": None}, TypeError, "center_offset must be a number, got NoneType"),
    (decode_maps, {"bbox_preds": []}, ValueError, "bbox_preds must have 1 to 8 levels, got 0"),
]


@pytest.mark.parametrize(("stage", "change", "error", "words"), STAGES_BAD, ids=range(len(STAGES_BAD)))
def test_errors_of_the_stages(stage: Any, change: dict[str, Any], error: type[Exception], words: str) -> None:
    anchors = {"assigned_gt": torch.zeros(1, 20).long(), "weights": torch.ones(1, 20), "strides": (8, 16)}
    good = {
        box_loss_maps: {"bbox_preds": MAPS[1], "gt_boxes": torch.zeros(1, 1, 4), **anchors},
        class_loss_maps: {"preds": MAPS[0], "labels": torch.zeros(1, 20).long(), "scores": torch.ones(1, 20)},
        decode_maps: {"bbox_preds": MAPS[1], "strides": (8, 16)},
    }[stage]
    with pytest.raises(error, match=f"{stage.__name__}: {words}"):
        stage(**(good | change))


@pytest.mark.parametrize("kind", ["soft_bce", "quality_focal", "varifocal", "sigmoid_focal"])
@pytest.mark.parametrize(
    "options", [{}, {"reduction": "sum", "gamma": 1.5, "alpha": 0.6}, {"avg_factor": 7.0}], ids=str
)
def test_class_losses_by_kind(options: dict[str, Any], kind: str, backend) -> None:
    scores = moved(random_head((0, 0), 2, dtype=torch.float64), backend.device)[0]
    anchors = sum(x.shape[2] * x.shape[3] for x in scores)
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(-2, 6, (2, anchors), generator=generator)
    quality = torch.rand(2, anchors, generator=generator, dtype=torch.float64)
    given = None if kind == "sigmoid_focal" else quality.to(backend.device)
    found = class_loss_maps(scores, labels.to(backend.device), given, kind, **options)

    logits = torch.cat([x.flatten(2).mT for x in scores], 1).cpu()
    own = torch.nn.functional.one_hot(labels.clamp(0, 4), 5) * ((labels >= 0) & (labels < 5))[..., None]
    gamma, p = options.get("gamma", 2.0), logits.sigmoid()
    target = own.double() if kind == "sigmoid_focal" else own * quality[..., None]
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    if kind == "quality_focal":
        loss = loss * (target - p).abs() ** gamma
    elif kind == "varifocal":
        loss = loss * torch.where(target > 0, target, options.get("alpha", 0.75) * p**gamma)
    elif kind == "sigmoid_focal":
        alpha = options.get("alpha", 0.25)
        loss = loss * torch.where(own > 0, alpha * (1 - p) ** gamma, (1 - alpha) * p**gamma)
    total = (loss * (labels != -2)[..., None]).sum()
    divisor = 1.0 if "reduction" in options else options.get("avg_factor", loss.numel())
    torch.testing.assert_close(found.cpu(), total / divisor, rtol=1e-6, atol=1e-9)


# ---- the host, where it is installed -------------------------------------------------------------------------


@pytest.mark.parametrize("gts", [(7, 3), (60, 0), (0, 0), (200, 90)], ids=str)
@pytest.mark.parametrize(("bins", "topk", "final_topk"), [(16, 10, None), (1, 10, None), (1, 7, 1), (16, 1, None)])
def test_as_ultralytics(bins: int, topk: int, final_topk: int | None, gts: tuple[int, int], needs_native) -> None:
    losses = pytest.importorskip("ultralytics.utils.loss", reason="compared with where it is installed")
    size, head = 320, random_head(gts, bins, size=320)
    last = SimpleNamespace(nc=5, reg_max=bins, no=5 + 4 * bins, stride=torch.tensor([8.0, 16.0, 32.0]))
    gains = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5)
    model = SimpleNamespace(model=[last], args=gains, parameters=lambda: iter([torch.zeros(1)]), class_weights=None)
    host = losses.v8DetectionLoss(model, tal_topk=topk, tal_topk2=final_topk)
    index = torch.cat([torch.full((len(t["labels"]),), float(i)) for i, t in enumerate(head[2])])
    boxes, labels = (torch.cat([target[name] for target in head[2]]) for name in ("boxes", "labels"))
    middle, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    batch = {"batch_idx": index, "cls": labels[:, None].float(), "bboxes": torch.cat([middle, sides], 1) / size}

    def theirs(cls_scores: list[Tensor], bbox_preds: list[Tensor], _: Any) -> list[Tensor]:
        scores, edges = (torch.cat([x.flatten(2) for x in maps], 2) for maps in (cls_scores, bbox_preds))
        bbox, cls, dfl = host({"boxes": edges, "scores": scores, "feats": cls_scores}, batch)[0] / len(gts)
        return [cls, bbox, dfl]

    found = losses_and_gradients(head, topk=topk, final_topk=final_topk)
    assert_same(found, losses_and_gradients(head, theirs), 1e-4)
