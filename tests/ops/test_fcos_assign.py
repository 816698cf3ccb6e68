"""FCOS's assignment: the reference against the rules written out, the kernels against the reference, and what must hold
of any assignment."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import gfl_ops
from gfl_ops import FcosAssignment, fcos_assign
from tests.support import assignment_oracles
from tests.support.assignment_inputs import KINDS, STRIDES, grid_points, level_shapes, random_gts
from tests.support.backends import only_backends
from tests.support.raw_ops import raw_op
from tests.support.running import map_tensors

WITHOUT_TRITON = True
SIZE = 160
RANGES = [(-1.0, 20.0), (20.0, 40.0), (40.0, math.inf)]
FORMS: dict[str, dict[str, Any]] = {
    "usual": {},
    "anywhere-inside": {"radius": None},
    "overlapping-ranges": {"radius": 4, "ranges": [(0, 64), (8, 1e9), (30.0, 50)]},
}
forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
native_backends = only_backends(without=("reference",))


@pytest.fixture
def assign(backend):
    """fcos_assign on one backend: tensors go there, and the result comes back."""

    def on_device(*args, **kwargs) -> FcosAssignment:
        args, kwargs = map_tensors(lambda x: x.to(backend.device), (args, kwargs))
        return FcosAssignment(*(x.cpu() for x in fcos_assign(*args, **kwargs)))

    return on_device


def scene(seed: int, gts: int, kind: str, size: int = SIZE, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    gt_boxes = random_gts(torch.Generator().manual_seed(seed), 2, gts, size, kind).to(dtype)
    counts = torch.tensor([gts, gts // 2])
    shapes = {"level_shapes": level_shapes(size), "strides": STRIDES, "ranges": RANGES}
    return {"gt_boxes": gt_boxes, "gt_counts": counts, **shapes}


def assert_same(got: FcosAssignment, expected: FcosAssignment) -> None:
    assert torch.equal(got.assigned_gt, expected.assigned_gt)
    assert torch.equal(got.distances, expected.distances)
    torch.testing.assert_close(got.centerness, expected.centerness, rtol=1e-6, atol=1e-7)


@forms
@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_is_what_the_rules_say(kind: str, form: dict[str, Any]) -> None:
    given = scene(1, 24, kind, 96, torch.float64) | form
    with gfl_ops.use_backend("reference"):
        found = fcos_assign(**given)
    points = grid_points(given["level_shapes"]).double()
    sizes = [height * width for height, width in given["level_shapes"]]
    of_cell = [
        pair
        for pair, cells in zip(zip(STRIDES, given["ranges"], strict=True), sizes, strict=True)
        for _ in range(cells)
    ]
    for image, count in enumerate(given["gt_counts"].tolist()):
        boxes = given["gt_boxes"][image, :count]
        gt, to, centerness = assignment_oracles.fcos_assign(points, of_cell, boxes, radius=given.get("radius", 1.5))
        assert found.assigned_gt[image].tolist() == gt
        torch.testing.assert_close(found.distances[image], torch.tensor(to, dtype=torch.float64))
        assert found.centerness[image].tolist() == pytest.approx(centerness)
    assert (found.assigned_gt >= 0).any()


@forms
@pytest.mark.parametrize("center_offset", [0.0, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@native_backends
def test_native_is_the_reference(dtype: torch.dtype, center_offset: float, form: dict[str, Any], assign) -> None:
    for kind in KINDS:
        for gts in (0, 2, 130):
            given = scene(gts, gts, kind, dtype=dtype) | form | {"center_offset": center_offset}
            with gfl_ops.use_backend("reference"):
                expected = fcos_assign(**given)
            assert_same(assign(**given), expected)


def test_by_hand(assign) -> None:
    boxes = torch.tensor([[[0.0, 0.0, 24.0, 24.0], [8.0, 0.0, 32.0, 24.0], [10.0, 10.0, 14.0, 14.0]]])
    found = assign(boxes, None, [(3, 4)], [8], ranges=[(-1, 64)], radius=1.1)
    assert found.assigned_gt.tolist() == [[0, 0, 0, 1, 0, 2, 0, 1, 0, 0, 0, 1]]
    assert found.distances[0, :2].tolist() == [[4.0, 4.0, 20.0, 20.0], [12.0, 4.0, 12.0, 20.0]]
    torch.testing.assert_close(found.centerness[0, :2], torch.tensor([0.2, 0.2**0.5]))
    found = assign(boxes[:, :1], None, [(3, 4)], [8], ranges=[(12, 20)], radius=0.9)
    assert (found.assigned_gt[0] >= 0).nonzero()[:, 0].tolist() == [5]
    found = assign(boxes[:, :1], None, [(3, 4)], [8], ranges=[(20, 20)], radius=None)
    assert (found.assigned_gt[0] >= 0).nonzero()[:, 0].tolist() == [0, 1, 2, 4, 6, 8, 9, 10]


HOSTILE = [
    [torch.nan, 0.0, 50.0, 50.0],
    [-torch.inf, 0.0, torch.inf, 50.0],
    [40.0, 40.0, 40.0, 90.0],
    [90.0, 90.0, 40.0, 40.0],
    [9000.0, 9000.0, 9100.0, 9100.0],
]


@pytest.mark.parametrize("radius", [None, 1.5])
def test_hostile_boxes_claim_nothing(radius: float | None, assign) -> None:
    good = torch.tensor([[[40.0, 40.0, 104.0, 104.0]]])
    shapes = {"level_shapes": level_shapes(SIZE), "strides": STRIDES, "ranges": RANGES, "radius": radius}
    expected = assign(good, None, **shapes)
    assert (expected.assigned_gt >= 0).any()
    assert_same(assign(torch.cat([good, torch.tensor([HOSTILE])], 1), torch.tensor([6]), **shapes), expected)


@pytest.mark.parametrize(("batch", "gts"), [(2, 0), (0, 3)])
def test_nothing_to_assign(batch: int, gts: int, assign) -> None:
    found = assign(torch.zeros(batch, gts, 4), None, [(3, 4), (0, 2)], [8, 16], ranges=[(0, 1), (0, 1)])
    assert found.assigned_gt.shape == found.centerness.shape == (batch, 12)
    assert found.assigned_gt.dtype == torch.int32 and found.distances.shape == (batch, 12, 4)
    assert (found.assigned_gt == -1).all() and (found.distances == 0).all() and (found.centerness == 0).all()


def test_half_types_are_float32(assign) -> None:
    given = scene(5, 20, "usual")
    half = given["gt_boxes"].half()
    assert_same(assign(**(given | {"gt_boxes": half})), assign(**(given | {"gt_boxes": half.float()})))


def test_run_to_run_and_any_number_of_threads(needs_native) -> None:
    given = scene(6, 100, "duplicates")
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 1, 2, 3):
            torch.set_num_threads(threads)
            found.append(fcos_assign(**given))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_opcheck_and_compile(needs_native) -> None:
    given = scene(7, 6, "usual")
    heights, widths = ([shape[i] for shape in given["level_shapes"]] for i in (0, 1))
    lows, highs = ([limits[i] for limits in [*RANGES[:2], (40.0, 1e9)]] for i in (0, 1))
    tensors = given.pop("gt_boxes"), given.pop("gt_counts")
    strides = [float(stride) for stride in STRIDES]
    torch.library.opcheck(raw_op("fcos_assign"), (*tensors, heights, widths, strides, lows, highs, 1.5, 0.5))
    compiled = torch.compile(lambda *tensors: fcos_assign(*tensors, **given), fullgraph=True)
    with gfl_ops.use_backend("native"):
        assert_same(compiled(*tensors), fcos_assign(*tensors, **given))


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"gt_boxes": torch.zeros(2, 4)}, ValueError, r"gt_boxes must be \(B, G, 4\), got \(2, 4\)"),
    ({"gt_boxes": torch.zeros(1, 2, 4).long()}, TypeError, "gt_boxes must be float32.* got int64"),
    ({"gt_counts": torch.tensor([1, 2])}, ValueError, r"gt_counts must be \(B,\) = \(1,\), got \(2,\)"),
    ({"strides": [8, 16]}, ValueError, "strides must have one entry for each of 1 levels, got 2"),
    ({"level_shapes": [(2, 2)] * 9}, ValueError, "level_shapes must have 1 to 8 levels, got 9"),
    ({"ranges": [(0, 1), (1, 2)]}, ValueError, "ranges must have one pair for each of 1 levels, got 2"),
    ({"ranges": [(0, 1, 2)]}, ValueError, r"ranges must be \(least, most\) pairs, got \(0, 1, 2\)"),
    ({"ranges": [5]}, TypeError, r"ranges must be a list of \(least, most\) pairs, got int"),
    ({"ranges": [(0, math.nan)]}, ValueError, "ranges must be .* got nan"),
    ({"radius": -1}, ValueError, "radius must be at least 0 .* got -1"),
    ({"center_offset": None}, TypeError, "center_offset must be a number, got NoneType"),
]


@pytest.mark.parametrize(("change", "error", "words"), BAD, ids=[f"{i}-{next(iter(b[0]))}" for i, b in enumerate(BAD)])
def test_errors(change: dict[str, Any], error: type[Exception], words: str) -> None:
    good: dict[str, Any] = {"gt_boxes": torch.zeros(1, 2, 4), "gt_counts": None}
    good |= {"level_shapes": [(2, 2)], "strides": [8], "ranges": [(0, 64)]}
    with pytest.raises(error, match=f"fcos_assign: {words}"):
        fcos_assign(**(good | change))
