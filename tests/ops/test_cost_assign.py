"""dynamic_soft_label_assign and simota_assign, which share all but their costs: the reference against the rules written
out, the kernels against the reference, and what must hold of any assignment."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import gfl_ops
from benchmarks.harness import counting
from gfl_ops import CostAssignment, dynamic_soft_label_assign, simota_assign
from tests.support import assignment_oracles
from tests.support.assignment_inputs import KINDS, Scene, level_shapes, point_strides, random_scene
from tests.support.backends import only_backends
from tests.support.raw_ops import raw_op
from tests.support.running import map_tensors

WITHOUT_TRITON = True
native_backends = only_backends(without=("reference",))


@dataclasses.dataclass(frozen=True)
class Assigner:
    run: Callable[..., CostAssignment]
    oracle: Callable[..., tuple[list[int], list[float]]]
    of_probabilities: Callable[[Tensor], Tensor]
    raw: tuple[Any, ...]  # kind, and the options by default

    @property
    def name(self) -> str:
        return self.run.__name__

    def scene(self, *args: Any, size: int = 160, **options: Any) -> tuple[Tensor, ...]:
        """The arguments of a call."""
        scene = random_scene(*args, size=size, **options)
        return self.arguments(scene, point_strides(level_shapes(size)).to(scene.points.dtype))

    def arguments(self, scene: Scene, strides: Tensor) -> tuple[Tensor, ...]:
        return (self.of_probabilities(scene.scores), *scene[1:3], strides, *scene[3:])


SOFT_LABEL = Assigner(
    dynamic_soft_label_assign,
    assignment_oracles.dynamic_soft_label_assign,
    lambda p: 2 * p.double().logit().to(p.dtype),
    (0, 13, 3.0, 1.0, 3.0),
)
SIMOTA = Assigner(simota_assign, assignment_oracles.simota_assign, lambda p: p, (1, 10, 2.5, 1.0, 3.0))
CALLS = [
    (SOFT_LABEL, {}),
    (SOFT_LABEL, {"topk": 3, "center_radius": 0.5, "iou_weight": 1.0}),
    (SOFT_LABEL, {"topk": 256, "center_radius": 6.0, "iou_weight": 0.0}),
    (SIMOTA, {}),
    (SIMOTA, {"topk": 3, "center_radius": 0.6, "cls_weight": 2.0, "iou_weight": 1.0}),
    (SIMOTA, {"topk": 256, "center_radius": 0.0, "cls_weight": 0.0}),
]
calls = pytest.mark.parametrize(
    ("assigner", "form"), CALLS, ids=[f"{a.name}-{i % 3}" for i, (a, _) in enumerate(CALLS)]
)
both = pytest.mark.parametrize("assigner", [SOFT_LABEL, SIMOTA], ids=lambda a: a.name)


@pytest.fixture
def assign(assigner, backend):
    """An assigner on one backend: tensors go there, and the result comes back."""

    def on_device(*args: Any, **options: Any) -> CostAssignment:
        args, options = map_tensors(lambda x: x.to(backend.device), (args, options))
        return CostAssignment(*(x.cpu() for x in assigner.run(*args, **options)))

    return on_device


def assert_same(got: CostAssignment, expected: CostAssignment) -> None:
    assert torch.equal(got.assigned_gt, expected.assigned_gt)
    torch.testing.assert_close(got.assigned_iou, expected.assigned_iou)


@calls
@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_is_what_the_rules_say(kind: str, assigner: Assigner, form: dict[str, Any]) -> None:
    arguments = assigner.scene(1, 24, kind, size=64, dtype=torch.float64)
    with gfl_ops.use_backend("reference"):
        found = assigner.run(*arguments, **form)
    *anchors, gt_boxes, gt_labels, gt_counts = arguments
    for image, count in enumerate(gt_counts.tolist()):
        one = anchors[0][image], anchors[1][image], *anchors[2:], gt_boxes[image, :count], gt_labels[image, :count]
        assigned, ious = assigner.oracle(*one, **form)
        assert found.assigned_gt[image].tolist() == assigned
        assert found.assigned_iou[image].tolist() == pytest.approx(ious, abs=1e-9)
    assert (found.assigned_gt >= 0).any()


@calls
@pytest.mark.parametrize("gts", [0, 1, 40])
@native_backends
def test_native_is_the_reference(gts: int, assigner: Assigner, form: dict[str, Any], assign) -> None:
    for kind in KINDS if gts > 1 else KINDS[:1]:
        arguments = assigner.scene(gts, gts, kind, size=96, dtype=torch.float64)
        with gfl_ops.use_backend("reference"):
            expected = assigner.run(*arguments, **form)
        assert_same(assign(*arguments, **form), expected)


@calls
@native_backends
def test_in_float32_up_to_ties(assigner: Assigner, form: dict[str, Any], assign) -> None:
    for kind in ("usual", "tiny"):
        arguments = assigner.scene(2, 40, kind, size=96)
        with gfl_ops.use_backend("reference"):
            expected = assigner.run(*arguments, **form)
        got = assign(*arguments, **form)
        same = got.assigned_gt == expected.assigned_gt
        assert (~same).sum() <= 0.01 * (expected.assigned_gt >= 0).sum()
        torch.testing.assert_close(got.assigned_iou[same], expected.assigned_iou[same])


@both
@pytest.mark.parametrize("classes", [1, 128, 300])
@native_backends
def test_any_number_of_classes(classes: int, assigner: Assigner, assign) -> None:
    arguments = assigner.scene(3, 30, classes=classes, size=64, dtype=torch.float64)
    with gfl_ops.use_backend("reference"):
        expected = assigner.run(*arguments)
    assert_same(assign(*arguments), expected)


@both
@native_backends
def test_scores_are_read_where_they_lie(assigner: Assigner, assign) -> None:
    """(B, C, A) as heads have them, every second class of a wider tensor, and any type."""
    scores, *others = assigner.scene(4, 20, classes=40)
    expected = assign(scores, *others)
    for moved in (
        scores.transpose(1, 2).contiguous().transpose(1, 2),
        scores.repeat_interleave(2, 2)[..., ::2],
        scores.double(),
    ):
        assert_same(assign(moved, *others), expected)
    for dtype in (torch.float16, torch.bfloat16):
        assert_same(assign(scores.to(dtype), *others), assign(scores.to(dtype).float(), *others))


@both
@native_backends
def test_half_boxes_are_computed_in_float32(assigner: Assigner, assign) -> None:
    arguments = assigner.scene(5, 20)
    rounded = [x.half() if x.is_floating_point() else x for x in arguments]
    widened = [x.float() if x.is_floating_point() else x for x in rounded]
    assert_same(assign(*rounded), assign(*widened))
    assert assign(*rounded).assigned_iou.dtype == torch.float32


# ---- by hand -----------------------------------------------------------------------------------------------


def row_of_points(gts: list[list[float]], boxes: list[list[float]], scores: Tensor | None = None) -> tuple[Tensor, ...]:
    """Points 8 pixels apart, one for each box; all scores alike unless given."""
    count = len(boxes)
    points = torch.stack([8.0 * torch.arange(count) + 4, torch.full((count,), 4.0)], 1)
    scores = torch.full((1, count, 1), 0.5) if scores is None else scores
    labels = torch.zeros(1, len(gts), dtype=torch.int64)
    return scores, torch.tensor([boxes]), points, torch.full((count,), 8.0), torch.tensor([gts]), labels


@both
def test_the_sum_of_ious_is_the_number_of_anchors(assigner: Assigner, assign) -> None:
    """Of five anchors inside, IoUs 1, 0.75, 0.5, 0.25 and 0; of those of the topk the sum is 1, 1.75, 2.25 and 2.5."""
    boxes = [[0.0, 0.0, 40.0 * share, 8.0] for share in (1.0, 0.75, 0.5, 0.25)] + [[80.0, 0.0, 88.0, 8.0]]
    arguments = row_of_points([[0.0, 0.0, 40.0, 8.0]], boxes)
    taken = [(assign(*arguments, topk=topk, center_radius=9.0).assigned_gt >= 0).sum().item() for topk in (1, 2, 3, 5)]
    assert taken == [1, 1, 2, 2]
    found = assign(*arguments, center_radius=9.0)
    assert found.assigned_gt.tolist() == [[0, 0, -1, -1, -1]]
    assert found.assigned_iou[0].tolist() == pytest.approx([1.0, 0.75, 0.0, 0.0, 0.0])


@both
def test_a_gt_without_a_point_claims_one_inside_of_another(assigner: Assigner, assign) -> None:
    gts = [[0.0, 0.0, 16.0, 8.0], [33.0, 0.0, 35.0, 2.0]]
    boxes = [[0.0, 0.0, 16.0, 8.0], [30.0, 0.0, 34.0, 8.0], [33.0, 0.0, 35.0, 2.0]]
    assert assign(*row_of_points(gts, boxes), center_radius=0.1).assigned_gt.tolist() == [[0, 1, -1]]


@both
def test_a_contested_anchor_may_go_to_one_that_does_not_claim_it(assigner: Assigner, assign) -> None:
    """The first two gts claim anchor 0, the third, whose IoU with it is higher, anchor 1."""
    gts = [[0.0, 0.0, 16.0, 8.0], [0.0, 0.0, 16.0, 8.5], [0.0, 0.0, 16.0, 10.0]]
    boxes = [[0.0, 0.0, 16.0, 9.5], [0.0, 0.0, 16.0, 10.0]]
    high = torch.tensor([[[0.99, 0.01], [0.01, 0.99]]])
    scores = assigner.of_probabilities(high)
    *arguments, _ = row_of_points(gts, boxes, scores)
    labels = torch.tensor([[0, 0, 1]])
    found = assign(*arguments, labels, topk=1, iou_weight=1000.0, center_radius=9.0)
    assert found.assigned_gt.tolist() == [[2, 2]]


@both
def test_ties_go_to_the_lower_index(assigner: Assigner, assign) -> None:
    """Two points as far from the centre, twice the same box, and two gts of which each claims one anchor."""
    gt = [0.0, 0.0, 16.0, 8.0]
    arguments = row_of_points([gt, gt], [[0.0, 0.0, 8.0, 8.0], [8.0, 0.0, 16.0, 8.0]])
    assert assign(*arguments).assigned_gt.tolist() == [[0, -1]]


def test_simota_takes_points_near_a_centre(backend) -> None:
    """Inside of none, but within the radius of the small gt's centre."""
    arguments = row_of_points([[7.0, 7.0, 9.0, 9.0]], [[7.0, 7.0, 9.0, 9.0]] * 2)
    near = map_tensors(lambda x: x.to(backend.device), arguments)
    assert simota_assign(*near).assigned_gt.tolist() == [[0, 0]]
    assert simota_assign(*near, center_radius=0.6).assigned_gt.tolist() == [[0, 0]]
    assert simota_assign(*near, center_radius=0.4).assigned_gt.tolist() == [[-1, -1]]
    assert dynamic_soft_label_assign(*near).assigned_gt.tolist() == [[-1, -1]]


@native_backends
def test_a_large_term_of_the_own_class_leaves_the_others_as_they_are(backend) -> None:
    """Of 60 and 1e-6 a float32 keeps the 60. The second anchor's other class costs a little less."""
    gt = [0.0, 0.0, 16.0, 8.0]
    logits = torch.tensor([[[60.0, -6.5], [60.0, -7.0]]])
    arguments = row_of_points([gt], [gt, gt], logits)
    found = dynamic_soft_label_assign(*map_tensors(lambda x: x.to(backend.device), arguments), topk=1)
    assert found.assigned_gt.tolist() == [[-1, 0]]


# ---- what must hold of any assignment ----------------------------------------------------------------------


@both
def test_padding_and_other_images_change_nothing(assigner: Assigner, assign) -> None:
    *anchors, gt_boxes, gt_labels, gt_counts = assigner.scene(6, 20, batch=3)
    boxes = torch.cat([gt_boxes, torch.full((3, 7, 4), torch.nan)], 1)
    labels = torch.cat([gt_labels, torch.full((3, 7), 99)], 1)
    together = assign(*anchors, boxes, labels, gt_counts)
    for image, count in enumerate(gt_counts.tolist()):
        one = slice(image, image + 1)
        alone = assign(anchors[0][one], anchors[1][one], *anchors[2:], gt_boxes[one, :count], gt_labels[one, :count])
        for x, y in zip(together, alone, strict=True):
            assert torch.equal(x[image], y[0])


@both
def test_permuting_the_gts_permutes_the_assignment(assigner: Assigner, assign) -> None:
    *anchors, gt_boxes, gt_labels, _ = assigner.scene(7, 25, batch=1, dtype=torch.float64)
    order = torch.randperm(25, generator=torch.Generator().manual_seed(0))
    first = assign(*anchors, gt_boxes, gt_labels)
    second = assign(*anchors, gt_boxes[:, order], gt_labels[:, order])
    taken = second.assigned_gt >= 0
    named = torch.where(taken, order[second.assigned_gt.clamp(min=0).long()].int(), second.assigned_gt)
    assert torch.equal(named, first.assigned_gt)
    assert torch.equal(second.assigned_iou, first.assigned_iou)


HOSTILE = {
    "nan": [torch.nan, 0.0, 50.0, 50.0],
    "infinite": [-torch.inf, 0.0, torch.inf, 50.0],
    "no area": [40.0, 40.0, 40.0, 90.0],
    "inverted": [90.0, 90.0, 40.0, 40.0],
}


@both
@pytest.mark.parametrize("box", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_boxes_claim_nothing(box: list[float], assigner: Assigner, assign) -> None:
    *anchors, gt_boxes, gt_labels, _ = assigner.scene(8, 6, batch=1)
    expected = assign(*anchors, gt_boxes, gt_labels)
    assert (expected.assigned_gt >= 0).any()
    for first in (False, True):
        both_boxes = [torch.tensor([[box]]), gt_boxes] if first else [gt_boxes, torch.tensor([[box]])]
        both_labels = [torch.tensor([[0]]), gt_labels] if first else [gt_labels, torch.tensor([[0]])]
        found = assign(*anchors, torch.cat(both_boxes, 1), torch.cat(both_labels, 1))
        assert torch.equal(found.assigned_gt - (first & (found.assigned_gt >= 0)).int(), expected.assigned_gt)
        assert torch.equal(found.assigned_iou, expected.assigned_iou)


@both
@pytest.mark.parametrize("label", [-1, 5, 2**40])
def test_labels_that_are_no_class_claim_nothing(label: int, assigner: Assigner, assign) -> None:
    *arguments, gt_labels, _ = assigner.scene(9, 6, batch=1)
    assert (assign(*arguments, torch.full_like(gt_labels, label)).assigned_gt == -1).all()


@both
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_anchors_that_are_no_candidates(value: float, assigner: Assigner, assign) -> None:
    scores, boxes, points, strides, gt_boxes, gt_labels, _ = assigner.scene(10, 12, batch=1)
    taken = (assign(scores, boxes, points, strides, gt_boxes, gt_labels).assigned_gt[0] >= 0).nonzero()[:, 0]
    boxes, strides, scores = boxes.clone(), strides.clone(), scores.clone()
    boxes[0, taken[0], 1] = value
    strides[taken[1]] = torch.nan
    strides[taken[2]] = 0.0
    lost = taken[:3]
    if assigner is SOFT_LABEL:
        scores[0, taken[3], 2] = torch.nan
        lost = taken[:4]
    found = assign(scores, boxes, points, strides, gt_boxes, gt_labels)
    assert (found.assigned_gt[0, lost] == -1).all()
    assert found.assigned_iou.isfinite().all()


@both
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("stride", [0.0, -8.0, torch.nan])
def test_the_only_anchor_is_no_candidate(stride: float, value: float, assigner: Assigner, assign) -> None:
    scores, boxes, points, strides, *gts = row_of_points([[0.0, 0.0, 8.0, 8.0]], [[0.0, 0.0, 8.0, 8.0]])
    assert assign(scores, boxes, points, strides, *gts).assigned_gt.tolist() == [[0]]
    assert assign(scores, boxes, points, torch.full_like(strides, stride), *gts).assigned_gt.tolist() == [[-1]]
    boxes[0, 0, 2] = value
    assert assign(scores, boxes, points, strides, *gts).assigned_gt.tolist() == [[-1]]


@both
@native_backends
def test_scores_far_beyond_any(assigner: Assigner, assign) -> None:
    scores, *others = assigner.scene(15, 20, dtype=torch.float64)
    wild = scores.clone()
    wild[:, ::3] = torch.tensor([torch.inf, -torch.inf, 1e4, -1e4, 0.0])
    wild[:, 1::3, :2] = torch.tensor([torch.inf, 1e300])
    with gfl_ops.use_backend("reference"):
        expected = assigner.run(wild, *others)
    assert_same(assign(wild, *others), expected)


@both
@pytest.mark.parametrize(("batch", "gts"), [(2, 0), (0, 3)])
def test_nothing_to_assign(batch: int, gts: int, assigner: Assigner, assign) -> None:
    arguments = assigner.scene(11, gts, batch=batch)
    found = assign(*arguments)
    assert found.assigned_gt.shape == arguments[1].shape[:2]
    assert (found.assigned_gt == -1).all() and (found.assigned_iou == 0).all()
    no_classes = arguments[0][..., :0]
    assert (assign(no_classes, *arguments[1:]).assigned_gt == -1).all()


@both
@native_backends
def test_run_to_run(assigner: Assigner, assign) -> None:
    arguments = assigner.scene(12, 30, "duplicates", size=64)
    first = assign(*arguments)
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(first, assign(*arguments), strict=True))


@both
def test_any_number_of_threads(assigner: Assigner, needs_native) -> None:
    arguments = assigner.scene(13, 100, "duplicates")
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(assigner.run(*arguments))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@both
def test_memory_does_not_grow_with_pairs(assigner: Assigner, needs_native) -> None:
    peaks = []
    for gts in (7, 1500):
        arguments = assigner.scene(16, gts, size=640)
        with gfl_ops.use_backend("native"):
            peaks.append(sum(counting.memory(lambda arguments=arguments: assigner.run(*arguments)).blocks))
    assert peaks[1] <= 1.2 * peaks[0]


@both
def test_opcheck_and_compile(assigner: Assigner, needs_native) -> None:
    arguments = assigner.scene(14, 6)
    scores, boxes, *others = arguments
    torch.library.opcheck(raw_op("cost_assign"), (boxes, scores.transpose(1, 2).unsqueeze(3), *others, *assigner.raw))
    compiled = torch.compile(lambda *tensors: assigner.run(*tensors), fullgraph=True)
    with gfl_ops.use_backend("native"):
        for got, expected in zip(compiled(*arguments), assigner.run(*arguments), strict=True):
            assert torch.equal(got, expected)


# ---- errors ------------------------------------------------------------------------------------------------

BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"scores": torch.zeros(2, 4)}, ValueError, r"(scores|logits) must be \(B, A, C\), got \(2, 4\)"),
    ({"scores": torch.zeros(1, 4, 3).long()}, TypeError, "(scores|logits) must be float32.* got int64"),
    ({"boxes": torch.zeros(1, 5, 4)}, ValueError, r"boxes must be \(B, A, 4\) = \(1, 4, 4\), got \(1, 5, 4\)"),
    ({"points": torch.zeros(4, 3)}, ValueError, r"points must be \(A, 2\) = \(4, 2\), got \(4, 3\)"),
    ({"strides": torch.zeros(3)}, ValueError, r"strides must be \(A,\) = \(4,\), got \(3,\)"),
    ({"strides": torch.zeros(4).long()}, TypeError, "strides must be float32.* got int64"),
    ({"strides": [8, 16]}, TypeError, "strides must be a tensor, got list"),
    ({"gt_boxes": torch.zeros(2, 2, 4)}, ValueError, r"gt_boxes must be \(B, G, 4\) with B = 1, got \(2, 2, 4\)"),
    ({"gt_labels": torch.zeros(1, 3).long()}, ValueError, r"gt_labels must be \(B, G\) = \(1, 2\), got \(1, 3\)"),
    ({"gt_counts": torch.tensor([1, 2])}, ValueError, r"gt_counts must be \(B,\) = \(1,\), got \(2,\)"),
    ({"topk": 0}, ValueError, "topk must be at least 1 .* got 0"),
    ({"topk": 257}, ValueError, "topk must be at most 256, got 257"),
    ({"center_radius": None}, TypeError, "center_radius must be a number, got NoneType"),
    ({"iou_weight": -1.0}, ValueError, "iou_weight must be in .* got -1"),
]


@both
@pytest.mark.parametrize(("change", "error", "words"), BAD, ids=[f"{i}-{next(iter(b[0]))}" for i, b in enumerate(BAD)])
def test_errors(change: dict[str, Any], error: type[Exception], words: str, assigner: Assigner) -> None:
    good = {
        "scores": torch.zeros(1, 4, 3),
        "boxes": torch.zeros(1, 4, 4),
        "points": torch.zeros(4, 2),
        "strides": torch.ones(4),
        "gt_boxes": torch.zeros(1, 2, 4),
        "gt_labels": torch.zeros(1, 2, dtype=torch.int64),
    }
    given = good | change
    with pytest.raises(error, match=f"{assigner.name}: {words}"):
        assigner.run(given.pop("scores"), **given)


def test_cls_weight_is_at_least_0() -> None:
    arguments = SIMOTA.scene(17, 2)
    with pytest.raises(ValueError, match=r"simota_assign: cls_weight must be in .* got -1"):
        simota_assign(*arguments, cls_weight=-1)
