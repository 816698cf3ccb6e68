"""Task-aligned assignment: the reference against the rules written out, the kernels against the reference, and what
must hold of any assignment. Where ultralytics is installed, its assigner, too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import gfl_ops
from gfl_ops import TaskAlignedAssignment, task_aligned_assign
from tests.support import assignment_oracles
from tests.support.assignment_inputs import KINDS, STRIDES, Scene, level_shapes, random_scene
from tests.support.backends import only_backends
from tests.support.raw_ops import raw_op
from tests.support.running import map_tensors

WITHOUT_TRITON = True
SIZE = 160
GRID = {"level_shapes": level_shapes(SIZE), "strides": STRIDES}
YOLO = {"topk": 10, "alpha": 0.5, "min_side": 16.0, "iou": "ciou"}
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "yolo": YOLO,
    "yolo26": YOLO | {"topk": 7, "final_topk": 1},
    "three-stay": {"final_topk": 3},
    "tood": {"inside_first": False},
    "tood-one-stays": {"inside_first": False, "topk": 40, "final_topk": 1, "iou": "ciou"},
    "odd-powers": {"alpha": 1.3, "beta": 2.5, "topk": 3},
    "no-powers": {"alpha": 0.0, "beta": 0.0, "topk": 1},
    "all-of-them": {"topk": 256},
}
forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
native_backends = only_backends(without=("reference",))


@pytest.fixture
def assign(backend):
    """task_aligned_assign on one backend: tensors go there, and the result comes back."""

    def on_device(*args, **kwargs) -> TaskAlignedAssignment:
        args, kwargs = map_tensors(lambda x: x.to(backend.device), (args, kwargs))
        return TaskAlignedAssignment(*(x.cpu() for x in task_aligned_assign(*args, **kwargs)))

    return on_device


def assert_same(got: TaskAlignedAssignment, expected: TaskAlignedAssignment, dtype: torch.dtype) -> None:
    assert torch.equal(got.assigned_gt, expected.assigned_gt)
    slack = {"rtol": 1e-12, "atol": 1e-13} if dtype == torch.float64 else {"rtol": 2e-5, "atol": 1e-6}
    torch.testing.assert_close(got.assigned_iou, expected.assigned_iou, **slack)
    torch.testing.assert_close(got.assigned_score, expected.assigned_score, **slack)
    assert torch.equal(got.assigned_label, expected.assigned_label)


@forms
@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_is_what_the_rules_say(kind: str, form: dict[str, Any]) -> None:
    scene = random_scene(1, 24, kind, size=64, dtype=torch.float64)
    with gfl_ops.use_backend("reference"):
        found = task_aligned_assign(*scene, **({"topk": 13} | form))
    for image, count in enumerate(scene.gt_counts.tolist()):
        one = (scene.scores[image], scene.boxes[image], scene.points, scene.gt_boxes[image, :count])
        expected = assignment_oracles.task_aligned_assign(*one, scene.gt_labels[image, :count], **({"topk": 13} | form))
        assert found.assigned_gt[image].tolist() == expected[0]
        assert found.assigned_iou[image].tolist() == pytest.approx(expected[1], abs=1e-9)
        assert found.assigned_score[image].tolist() == pytest.approx(expected[2], abs=1e-9)
    assert (found.assigned_gt >= 0).any()


@forms
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("gts", [0, 1, 7, 60])
@native_backends
def test_native_is_the_reference(gts: int, dtype: torch.dtype, form: dict[str, Any], assign) -> None:
    for kind in KINDS if gts > 1 else KINDS[:1]:
        scene = random_scene(gts, gts, kind, dtype=dtype)
        with gfl_ops.use_backend("reference"):
            expected = task_aligned_assign(*scene, **form)
        assert_same(assign(*scene, **form, **GRID), expected, dtype)
        assert_same(assign(*scene, **form), expected, dtype)


@native_backends
def test_logits_and_half_scores(assign) -> None:
    scene = random_scene(3, 20)
    logits = (scene.scores.double().logit() * 2).float()
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        given = scene._replace(scores=logits.to(dtype))
        with gfl_ops.use_backend("reference"):
            expected = task_aligned_assign(*given, logits=True)
        assert_same(assign(*given, logits=True), expected, torch.float32)


@native_backends
def test_scores_are_read_where_they_lie(assign) -> None:
    """(B, C, A) as heads have them, and every second class of a wider tensor."""
    scene = random_scene(4, 20)
    expected = assign(*scene)
    by_class = scene.scores.transpose(1, 2).contiguous().transpose(1, 2)
    assert_same(assign(*scene._replace(scores=by_class)), expected, torch.float64)
    wide = scene.scores.repeat_interleave(2, 2)[..., ::2]
    assert_same(assign(*scene._replace(scores=wide)), expected, torch.float64)


@native_backends
def test_half_boxes_are_computed_in_float32(assign) -> None:
    scene = random_scene(5, 20)
    rounded = scene._replace(boxes=scene.boxes.half(), gt_boxes=scene.gt_boxes.half(), points=scene.points.half())
    widened = scene._replace(
        boxes=rounded.boxes.float(), gt_boxes=rounded.gt_boxes.float(), points=rounded.points.float()
    )
    assert_same(assign(*rounded), assign(*widened), torch.float64)
    assert assign(*rounded).assigned_score.dtype == torch.float32


def test_by_hand(assign) -> None:
    """Four points in two gts. Each claims its best two; the one in the middle goes to the higher IoU."""
    points = torch.tensor([[4.0, 4.0], [12.0, 4.0], [20.0, 4.0], [28.0, 4.0]])
    gts = torch.tensor([[[0.0, 0.0, 24.0, 8.0], [8.0, 0.0, 32.0, 8.0]]])
    boxes = torch.tensor([[[0.0, 0.0, 24.0, 8.0], [8.0, 0.0, 32.0, 8.0], [0.0, 0.0, 24.0, 8.0], [8.0, 0.0, 32.0, 8.0]]])
    scores = torch.tensor([[[0.5, 0.0], [0.0, 0.5], [0.8, 0.5], [0.0, 0.9]]])
    found = assign(scores, boxes, points, gts, torch.tensor([[0, 1]]), topk=2)
    assert found.assigned_gt.tolist() == [[0, 1, 0, 1]]
    assert found.assigned_iou.tolist() == [[1.0, 1.0, 1.0, 1.0]]
    assert found.assigned_score[0].tolist() == pytest.approx([0.5 / 0.8, 0.5 / 0.9, 1.0, 1.0])
    assert found.assigned_gt.dtype == torch.int32


def crossed(dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """Three anchors inside three gts; all predict the third, which has the lowest scores."""
    points = torch.tensor([[10.0, 10.0], [12.0, 12.0], [14.0, 14.0]], dtype=dtype)
    gts = torch.tensor([[[0.0, 0.0, 24.0, 24.0], [0.0, 0.0, 25.0, 25.0], [0.0, 0.0, 26.0, 26.0]]], dtype=dtype)
    scores = torch.tensor([[[0.9, 0.8, 0.01], [0.7, 0.6, 0.02], [0.1, 0.2, 0.03]]], dtype=dtype)
    return scores, gts[:, 2:].expand(1, 3, 4), points, gts, torch.tensor([[0, 1, 2]])


def test_a_contested_anchor_may_go_to_one_that_does_not_claim_it(assign) -> None:
    found = assign(*crossed(), topk=1)  # the first two claim anchor 0, the third claims anchor 2
    assert found.assigned_gt.tolist() == [[2, -1, 2]]
    among_claimants = assign(*crossed(), topk=1, inside_first=False)
    assert among_claimants.assigned_gt.tolist() == [[1, -1, 2]]


def test_what_a_gt_keeps_is_chosen_from_what_it_has_won(assign) -> None:
    assert assign(*crossed(), topk=1, final_topk=1).assigned_gt.tolist() == [[-1, -1, 2]]


def test_ties_go_to_the_lower_index(assign) -> None:
    scores, boxes, points, gts, labels = crossed()
    same = torch.full_like(scores, 0.5), boxes, points, gts[:, :1].expand(1, 3, 4).contiguous(), labels
    found = assign(*same, topk=2)
    assert found.assigned_gt.tolist() == [[0, 0, -1]]
    assert assign(*same, topk=2, final_topk=1).assigned_gt.tolist() == [[0, -1, -1]]
    assert assign(*same, topk=2, inside_first=False).assigned_gt.tolist() == [[0, 0, -1]]


def test_a_small_gt_reaches_the_points_around_it(assign) -> None:
    points = torch.tensor([[4.0, 4.0], [12.0, 4.0], [20.0, 4.0]])
    gts = torch.tensor([[[7.0, 3.0, 9.0, 5.0]]])
    arguments = torch.full((1, 3, 1), 0.5), gts.expand(1, 3, 4), points, gts, torch.zeros(1, 1, dtype=torch.int64)
    assert (assign(*arguments).assigned_gt == -1).all()
    assert assign(*arguments, min_side=9.0).assigned_gt.tolist() == [[0, 0, -1]]


def test_padding_and_other_images_change_nothing(assign) -> None:
    scene = random_scene(6, 20, batch=3)
    padded = scene._replace(
        gt_boxes=torch.cat([scene.gt_boxes, torch.full((3, 7, 4), torch.nan)], 1),
        gt_labels=torch.cat([scene.gt_labels, torch.full((3, 7), 99)], 1),
    )
    together = assign(*padded, **GRID)
    for image, count in enumerate(scene.gt_counts.tolist()):
        one = slice(image, image + 1)
        alone = assign(
            scene.scores[one], scene.boxes[one], scene.points, scene.gt_boxes[one, :count], scene.gt_labels[one, :count]
        )
        for x, y in zip(together, alone, strict=True):
            assert torch.equal(x[image], y[0])


def test_permuting_the_gts_permutes_the_assignment(assign) -> None:
    scene = random_scene(7, 25, batch=1)
    order = torch.randperm(25, generator=torch.Generator().manual_seed(0))
    first = assign(*scene[:5])
    second = assign(*scene[:3], scene.gt_boxes[:, order], scene.gt_labels[:, order])
    named = torch.where(
        second.assigned_gt >= 0, order[second.assigned_gt.clamp(min=0).long()].int(), second.assigned_gt
    )
    assert torch.equal(named, first.assigned_gt)
    assert torch.equal(second.assigned_score, first.assigned_score)


HOSTILE = {
    "nan": [torch.nan, 0.0, 50.0, 50.0],
    "infinite": [-torch.inf, 0.0, torch.inf, 50.0],
    "no area": [40.0, 40.0, 40.0, 90.0],
    "inverted": [90.0, 90.0, 40.0, 40.0],
    "outside": [9000.0, 9000.0, 9100.0, 9100.0],
    "before": [-900.0, -900.0, -800.0, -800.0],
}


@pytest.mark.parametrize("form", [{}, YOLO, {"inside_first": False}], ids=["plain", "yolo", "tood"])
@pytest.mark.parametrize("box", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_boxes_claim_nothing(box: list[float], form: dict[str, Any], assign) -> None:
    scene = random_scene(8, 6, batch=1)
    expected = assign(*scene[:5], **form, **GRID)
    assert (expected.assigned_gt >= 0).any()
    worse = torch.cat([scene.gt_boxes, torch.tensor([[box]])], 1), torch.cat([scene.gt_labels, torch.tensor([[0]])], 1)
    found = assign(*scene[:3], *worse, **form, **GRID)
    for x, y in zip(found, expected, strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("label", [-1, 5, 2**40])
def test_labels_that_are_no_class_claim_nothing(label: int, assign) -> None:
    scene = random_scene(9, 6, batch=1)
    labels = torch.full_like(scene.gt_labels, label)
    assert (assign(*scene[:4], labels).assigned_gt == -1).all()


def test_scores_and_boxes_with_nan_are_not_assigned(assign) -> None:
    scene = random_scene(10, 12, batch=1)
    taken = (assign(*scene[:5]).assigned_gt[0] >= 0).nonzero()[:, 0]
    boxes, scores = scene.boxes.clone(), scene.scores.clone()
    boxes[0, taken[0]] = torch.nan
    scores[0, taken[1]] = torch.nan
    found = assign(scores, boxes, *scene[2:5])
    assert (found.assigned_gt[0, taken[:2]] == -1).all()
    assert all(x.isfinite().all() for x in found)


@pytest.mark.parametrize(("batch", "gts"), [(2, 0), (0, 3)])
def test_nothing_to_assign(batch: int, gts: int, assign) -> None:
    scene = random_scene(11, gts, batch=batch)
    found = assign(*scene, **GRID)
    assert found.assigned_gt.shape == scene.boxes.shape[:2]
    assert (found.assigned_gt == -1).all() and (found.assigned_iou == 0).all() and (found.assigned_score == 0).all()


@native_backends
def test_run_to_run(assign) -> None:
    scene = random_scene(12, 100, "duplicates")
    first = assign(*scene, **YOLO, **GRID)
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(first, assign(*scene, **YOLO, **GRID), strict=True))


def test_any_number_of_threads(needs_native) -> None:
    scene = random_scene(13, 100, "duplicates")
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(task_aligned_assign(*scene, **YOLO, **GRID))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def raw_arguments(scene: Scene, form: dict[str, Any]) -> tuple[Any, ...]:
    options = {"topk": 13, "final_topk": 0, "alpha": 1.0, "beta": 6.0, "inside_first": True, "min_side": 0.0} | form
    options["iou_kind"] = {"iou": 0, "ciou": 3}[options.pop("iou", "iou")]
    shapes = level_shapes(SIZE)
    levels = [height for height, _ in shapes], [width for _, width in shapes], [float(stride) for stride in STRIDES]
    scores = scene.scores.transpose(1, 2).unsqueeze(3)
    return (scene.boxes, [scores], *scene[2:], *levels, 0.5, False, *options.values())


@pytest.mark.parametrize("form", [{}, YOLO | {"final_topk": 1}], ids=["plain", "yolo26"])
def test_opcheck_and_compile(form: dict[str, Any], needs_native) -> None:
    scene = random_scene(14, 6)
    torch.library.opcheck(raw_op("task_aligned_assign"), raw_arguments(scene, form))
    compiled = torch.compile(lambda *tensors: task_aligned_assign(*tensors, **form, **GRID), fullgraph=True)
    with gfl_ops.use_backend("native"):
        for got, expected in zip(compiled(*scene), task_aligned_assign(*scene, **form, **GRID), strict=True):
            assert torch.equal(got, expected)


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"scores": torch.zeros(2, 4)}, ValueError, r"scores must be \(B, A, C\), got \(2, 4\)"),
    ({"scores": torch.zeros(1, 4, 3).long()}, TypeError, "scores must be float32.* got int64"),
    ({"boxes": torch.zeros(1, 5, 4)}, ValueError, r"boxes must be \(B, A, 4\) = \(1, 4, 4\), got \(1, 5, 4\)"),
    ({"points": torch.zeros(4, 3)}, ValueError, r"points must be \(A, 2\) = \(4, 2\), got \(4, 3\)"),
    ({"gt_boxes": torch.zeros(2, 2, 4)}, ValueError, r"gt_boxes must be \(B, G, 4\) with B = 1, got \(2, 2, 4\)"),
    ({"gt_labels": torch.zeros(1, 3).long()}, ValueError, r"gt_labels must be \(B, G\) = \(1, 2\), got \(1, 3\)"),
    ({"gt_labels": torch.zeros(1, 2)}, TypeError, "gt_labels must be int64.* got float32"),
    ({"gt_counts": torch.tensor([1, 2])}, ValueError, r"gt_counts must be \(B,\) = \(1,\), got \(2,\)"),
    ({"topk": 0}, ValueError, "topk must be at least 1 .* got 0"),
    ({"topk": 257}, ValueError, "topk must be at most 256, got 257"),
    ({"topk": 1.5}, TypeError, "topk must be a whole number, got 1.5"),
    ({"final_topk": 0}, ValueError, "final_topk must be at least 1 .* got 0"),
    ({"alpha": -1}, ValueError, "alpha must be in .* got -1"),
    ({"beta": None}, TypeError, "beta must be a number, got NoneType"),
    ({"min_side": -1.0}, ValueError, "min_side must be in .* got -1"),
    ({"iou": "giou"}, ValueError, "iou must be one of 'iou', 'ciou', got 'giou'"),
    ({"inside_first": 1}, TypeError, "inside_first must be True or False, got int"),
    ({"logits": None}, TypeError, "logits must be True or False, got NoneType"),
    ({"strides": [8]}, ValueError, "level_shapes and strides come together, but level_shapes is None"),
    ({"level_shapes": [(2, 2)]}, ValueError, "level_shapes and strides come together, but strides is None"),
    ({"level_shapes": [(2, 3)], "strides": [8]}, ValueError, "level_shapes must have as many cells .* 4, got 6"),
    ({"level_shapes": [(2, 2)], "strides": [0]}, ValueError, "strides must be above 0 .* got 0"),
]


@pytest.mark.parametrize(("change", "error", "words"), BAD, ids=[f"{i}-{next(iter(b[0]))}" for i, b in enumerate(BAD)])
def test_errors(change: dict[str, Any], error: type[Exception], words: str) -> None:
    good = {
        "scores": torch.zeros(1, 4, 3),
        "boxes": torch.zeros(1, 4, 4),
        "points": torch.zeros(4, 2),
        "gt_boxes": torch.zeros(1, 2, 4),
        "gt_labels": torch.zeros(1, 2, dtype=torch.int64),
    }
    with pytest.raises(error, match=f"task_aligned_assign: {words}"):
        task_aligned_assign(**(good | change))


# ---- the hosts, where they are installed -------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gts", [1, 30, 200])
@pytest.mark.parametrize("final_topk", [None, 1])
def test_as_ultralytics(final_topk: int | None, gts: int, kind: str, needs_native) -> None:
    assigners = pytest.importorskip("ultralytics.utils.tal", reason="compared with where it is installed")
    scene = random_scene(gts, gts, kind)
    host = assigners.TaskAlignedAssigner(topk=10, num_classes=5, alpha=0.5, beta=6.0, topk2=final_topk)
    real = (torch.arange(gts) < scene.gt_counts[:, None])[..., None].float()
    _, _, target, foreground, index = host(*scene[:3], scene.gt_labels[..., None], scene.gt_boxes * real, real)
    found = task_aligned_assign(*scene, **YOLO, final_topk=final_topk, **GRID)
    theirs = target.amax(2)
    # A metric of 0 claims nothing here; there it does where a gt has fewer candidates than topk, and has no effect.
    expected = torch.where(foreground.bool() & (theirs > 0), index, -1)
    got = torch.where(found.assigned_score > 0, found.assigned_gt, -1)
    same = got == expected
    assert (~same).sum() <= 1e-3 * (expected >= 0).sum()
    torch.testing.assert_close(found.assigned_score[same], theirs[same], rtol=0, atol=1e-5)
