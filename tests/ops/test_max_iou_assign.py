"""Assignment by the highest IoU: the reference against the rules written out, the kernels against the reference, and
what must hold of any assignment. Where torchvision is installed, its matcher, too."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gfl_ops
from gfl_ops import MaxIouAssignment, max_iou_assign
from tests.support import assignment_oracles
from tests.support.assignment_inputs import KINDS, grid_anchors, random_gts
from tests.support.backends import only_backends
from tests.support.raw_ops import raw_op
from tests.support.running import map_tensors

WITHOUT_TRITON = True
SIZE = 128
FORMS: dict[str, dict[str, Any]] = {
    "retina": {},
    "rpn": {"positive_iou": 0.7, "negative_iou": 0.3, "least_iou": 0.3},
    "ssd": {"negative_iou": 0.5, "all_best": False},
    "second-stage": {"negative_iou": 0.5, "least_iou": None},
    "pair": {"negative_iou": (0.1, 0.4), "all_best": False, "least_iou": 0.4},
}
forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
native_backends = only_backends(without=("reference",))


@pytest.fixture
def assign(backend):
    """max_iou_assign on one backend: tensors go there, and the result comes back."""

    def on_device(*args, **kwargs) -> MaxIouAssignment:
        args, kwargs = map_tensors(lambda x: x.to(backend.device), (args, kwargs))
        return MaxIouAssignment(*(x.cpu() for x in max_iou_assign(*args, **kwargs)))

    return on_device


def scene(seed: int, gts: int, kind: str, size: int = SIZE, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Every third ground truth is like an anchor."""
    generator = torch.Generator().manual_seed(seed)
    anchors = grid_anchors(size).to(dtype)
    gt_boxes = random_gts(generator, 2, gts, size, kind).to(dtype)
    alike = gt_boxes[:, ::3]
    alike[:] = anchors[torch.randint(len(anchors), alike.shape[:2], generator=generator)]
    alike += torch.randn(alike.shape, generator=generator)
    return {
        "anchors": anchors,
        "gt_boxes": gt_boxes,
        "gt_counts": torch.tensor([gts, gts // 2]),
        "valid": torch.rand(2, len(anchors), generator=generator) < 0.9,
    }


def equal(got: MaxIouAssignment, expected: MaxIouAssignment) -> bool:
    return all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@forms
@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_is_what_the_rules_say(kind: str, form: dict[str, Any]) -> None:
    given = scene(1, 12, kind, 64, torch.float64)
    with gfl_ops.use_backend("reference"):
        found = max_iou_assign(**given, **form)
    for image, count in enumerate(given["gt_counts"].tolist()):
        one = given["anchors"], given["gt_boxes"][image, :count], given["valid"][image]
        gt, iou = assignment_oracles.max_iou_assign(*one, **form)
        assert found.assigned_gt[image].tolist() == gt
        assert found.assigned_iou[image].tolist() == pytest.approx(iou, abs=1e-12)
    assert (found.assigned_gt >= 0).any() and (found.assigned_gt == -2).any()


@forms
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@native_backends
def test_native_is_the_reference(dtype: torch.dtype, form: dict[str, Any], assign) -> None:
    for kind in KINDS:
        for gts in (0, 2, 130):
            given = scene(gts, gts, kind, dtype=dtype)
            with gfl_ops.use_backend("reference"):
                expected = max_iou_assign(**given, **form)
            assert equal(assign(**given, **form), expected)


@native_backends
def test_anchors_of_each_image_and_one_list_of_valid_ones(assign) -> None:
    given = scene(2, 20, "usual")
    own = torch.stack([given["anchors"], given["anchors"].flip(0)])
    apart = [
        assign(own[i], given["gt_boxes"][i : i + 1], given["gt_counts"][i : i + 1], given["valid"][0]) for i in range(2)
    ]
    together = assign(own, given["gt_boxes"], given["gt_counts"], given["valid"][0])
    assert equal(together, MaxIouAssignment(*(torch.cat(parts) for parts in zip(*apart, strict=True))))
    once = assign(**(given | {"valid": given["valid"][0]}))
    assert equal(once, assign(**(given | {"valid": given["valid"][:1].expand(2, -1)})))


def test_by_hand(assign) -> None:
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 12.0], [2.0, 0.0, 10.0, 8.0], [40.0, 0.0, 48.0, 8.0]])
    gts = torch.tensor([[[0.0, 0.0, 8.0, 8.0], [38.0, 0.0, 46.0, 8.0], [42.0, 0.0, 50.0, 8.0]]])
    found = assign(anchors, gts, positive_iou=0.65)
    assert found.assigned_gt.tolist() == [[0, 0, -2, 2]]  # the last anchor is the best of two gts
    torch.testing.assert_close(found.assigned_iou, torch.tensor([[1.0, 2 / 3, 0.0, 0.6]]))
    assert assign(anchors, gts[:, :1], all_best=False).assigned_gt.tolist() == [[0, 0, 0, -1]]


def test_one_or_all_of_the_best(assign) -> None:
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [8.0, 0.0, 16.0, 8.0], [9.0, 0.0, 17.0, 8.0]])
    gt = torch.tensor([[[4.0, 0.0, 12.0, 8.0]]])
    assert assign(anchors, gt).assigned_gt.tolist() == [[0, 0, -1]]
    assert assign(anchors, gt, all_best=False).assigned_gt.tolist() == [[0, -1, -1]]
    assert assign(anchors, gt, least_iou=0.4).assigned_gt.tolist() == [[-1, -1, -1]]
    valid = torch.tensor([False, True, True])
    assert assign(anchors, gt, valid=valid, all_best=False).assigned_gt.tolist() == [[-2, 0, -1]]


HOSTILE = [
    [torch.nan, 0.0, 50.0, 50.0],
    [-torch.inf, 0.0, torch.inf, 50.0],
    [40.0, 40.0, 40.0, 90.0],
    [90.0, 90.0, 40.0, 40.0],
    [9000.0, 9000.0, 9100.0, 9100.0],
]


def test_hostile_boxes_claim_nothing(assign) -> None:
    given = scene(3, 6, "usual")
    expected = assign(**given)
    counts = given["gt_counts"]
    worse = torch.cat([given["gt_boxes"], torch.tensor(HOSTILE).expand(2, -1, -1)], 1)
    for image, count in enumerate(counts.tolist()):
        worse[image, count : count + len(HOSTILE)] = torch.tensor(HOSTILE)
    assert equal(assign(**(given | {"gt_boxes": worse, "gt_counts": counts + len(HOSTILE)})), expected)


def test_hostile_anchors_are_background(assign) -> None:
    given = scene(4, 20, "usual")
    anchors = torch.cat([given["anchors"], torch.tensor(HOSTILE)[:4], given["anchors"][:40]])
    gts = given["gt_boxes"]
    found = assign(anchors, gts, all_best=False)
    kept = torch.ones(len(anchors), dtype=torch.bool)
    kept[-44:-40] = False
    assert (found.assigned_gt[:, ~kept] == -1).all()
    clean = assign(anchors[kept], gts, all_best=False)
    assert equal(MaxIouAssignment(*(x[:, kept] for x in found)), clean)


@pytest.mark.parametrize("all_best", [True, False])
@pytest.mark.parametrize(("batch", "anchors", "gts"), [(2, 70, 0), (0, 5, 3), (2, 0, 3)])
def test_nothing_to_assign(batch: int, anchors: int, gts: int, all_best: bool, assign) -> None:
    found = assign(torch.rand(anchors, 4), torch.zeros(batch, gts, 4), negative_iou=(0.2, 0.4), all_best=all_best)
    assert found.assigned_gt.shape == found.assigned_iou.shape == (batch, anchors)
    assert found.assigned_gt.dtype == torch.int32
    assert (found.assigned_gt == -1).all() and (found.assigned_iou == 0).all()


def test_half_types_are_float32(assign) -> None:
    given = scene(5, 20, "usual")
    given = {name: x.bfloat16() if x.is_floating_point() else x for name, x in given.items()}
    wide = {name: x.float() if x.is_floating_point() else x for name, x in given.items()}
    assert equal(assign(**given), assign(**wide))


@pytest.mark.parametrize("all_best", [True, False])
def test_run_to_run_and_any_number_of_threads(all_best: bool, needs_native) -> None:
    given = scene(6, 100, "duplicates")
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 1, 2, 3):
            torch.set_num_threads(threads)
            found.append(max_iou_assign(**given, all_best=all_best))
    finally:
        torch.set_num_threads(before)
    assert all(equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("anchors_of_images", [False, True])
def test_opcheck_and_compile(anchors_of_images: bool, needs_native) -> None:
    given = scene(7, 6, "usual")
    if anchors_of_images:
        given |= {"anchors": given["anchors"].repeat(2, 1, 1), "valid": given["valid"][0]}
    raw = *list(given.values())[:3], given["valid"].byte(), 0.5, 0.0, 0.4, 0.0, not anchors_of_images
    torch.library.opcheck(raw_op("max_iou_assign"), raw)
    compiled = torch.compile(lambda *tensors: max_iou_assign(*tensors), fullgraph=True)
    with gfl_ops.use_backend("native"):
        assert equal(compiled(*given.values()), max_iou_assign(**given))


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"anchors": torch.zeros(4)}, ValueError, r"anchors must be \(A, 4\) or \(B, A, 4\), got \(4,\)"),
    ({"anchors": torch.zeros(4, 4).long()}, TypeError, "anchors must be float32.* got int64"),
    ({"anchors": torch.zeros(2, 4, 4)}, ValueError, r"gt_boxes must be \(B, G, 4\) with B = 2, got \(1, 2, 4\)"),
    ({"gt_boxes": torch.zeros(2, 4)}, ValueError, r"gt_boxes must be \(B, G, 4\), got \(2, 4\)"),
    ({"gt_counts": torch.tensor([1, 2])}, ValueError, r"gt_counts must be \(B,\) = \(1,\), got \(2,\)"),
    ({"valid": torch.ones(4)}, TypeError, "valid must be bool, got float32"),
    ({"valid": torch.ones(5).bool()}, ValueError, r"valid must be \(A,\) = \(4,\), got \(5,\)"),
    ({"valid": torch.ones(2, 4).bool()}, ValueError, r"valid must be \(A,\) or \(B, A\) = \(1, 4\), got \(2, 4\)"),
    ({"positive_iou": 0}, ValueError, "positive_iou must be above 0 .* got 0"),
    ({"negative_iou": -0.1}, ValueError, "negative_iou must be at least 0 .* got -0.1"),
    (
        {"negative_iou": (0.1, 0.2, 0.3)},
        ValueError,
        r"negative_iou must be a number or a pair .* got \(0.1, 0.2, 0.3\)",
    ),
    ({"least_iou": "0"}, TypeError, "least_iou must be a number, got str"),
    ({"all_best": 1}, TypeError, "all_best must be True or False, got int"),
]


@pytest.mark.parametrize(("change", "error", "words"), BAD, ids=[f"{i}-{next(iter(b[0]))}" for i, b in enumerate(BAD)])
def test_errors(change: dict[str, Any], error: type[Exception], words: str) -> None:
    good = {"anchors": torch.zeros(4, 4), "gt_boxes": torch.zeros(1, 2, 4)}
    with pytest.raises(error, match=f"max_iou_assign: {words}"):
        max_iou_assign(**(good | change))


@pytest.mark.parametrize("kind", KINDS)
def test_as_torchvision(kind: str, needs_native) -> None:
    matchers = pytest.importorskip("torchvision.models.detection._utils", reason="compared with where it is installed")
    given = scene(8, 40, kind)
    anchors, gts = given["anchors"], given["gt_boxes"][0]
    overlap = gfl_ops.box_iou(gts, anchors)
    gts, overlap = gts[overlap.amax(1) > 0], overlap[overlap.amax(1) > 0]
    theirs = matchers.Matcher(0.5, 0.4, allow_low_quality_matches=True)(overlap)
    ours = max_iou_assign(anchors, gts[None]).assigned_gt[0]
    assert torch.equal(ours.clamp(max=0), theirs.clamp(max=0).int())
    of_itself = (ours >= 0) & (overlap.gather(0, ours.clamp(min=0)[None].long())[0] == overlap.amax(0))
    assert torch.equal(overlap.gather(0, theirs.clamp(min=0)[None])[0][of_itself], overlap.amax(0)[of_itself])
