"""NMS on every backend: by hand, against a plain loop over pairs, and what must hold of any suppression."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import gfl_ops
from benchmarks.eager import oracle_detections
from gfl_ops import batched_nms, nms, nms_padded
from tests.support.backends import only_backends
from tests.support.detections import random_boxes, random_classes, random_scores
from tests.support.raw_ops import raw_op

WITHOUT_TRITON = True

INF, NAN = torch.inf, torch.nan


# ---- values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 15, 16, 17, 64, 65, 300])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.6, 1.0])
def test_against_a_loop_over_pairs(threshold: float, count: int, backend) -> None:
    boxes, scores = random_boxes(count), random_scores(count, steps=20)
    expected = oracle_detections.nms(boxes, scores, threshold)
    got = nms(boxes.to(backend.device), scores.to(backend.device), threshold)
    assert got.dtype == torch.int64 and got.device.type == backend.device
    assert got.tolist() == expected.tolist()


@pytest.mark.parametrize("spread", [1, 10**15], ids=["small-numbers", "huge-numbers"])
@pytest.mark.parametrize("count", [1, 33, 300])
def test_classes_against_a_loop_over_pairs(count: int, spread: int, backend) -> None:
    boxes, scores, classes = random_boxes(count), random_scores(count), random_classes(count, 5) * spread
    expected = oracle_detections.nms(boxes, scores, 0.4, classes)
    device = backend.device
    got = batched_nms(boxes.to(device), scores.to(device), classes.to(device), 0.4)
    assert got.tolist() == expected.tolist()


@pytest.mark.parametrize("criterion", ["iou", "diou"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_against_the_reference(dtype: torch.dtype, criterion: str, backend) -> None:
    boxes, scores, classes = random_boxes(200, dtype=dtype), random_scores(200).to(dtype), random_classes(200, 3)
    device = backend.device
    got = batched_nms(boxes.to(device), scores.to(device), classes.to(device), 0.3, criterion=criterion)
    with gfl_ops.use_backend("reference"):
        expected = batched_nms(boxes, scores, classes, 0.3, criterion=criterion)
    assert 20 < len(expected) < 200
    assert got.tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["avx512", "avx2", "baseline"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_instruction_set(dtype: torch.dtype, name: str, needs_native) -> None:
    core = gfl_ops._native.core()
    before = core.cpu_isa()
    boxes, scores, classes = random_boxes(500, dtype=dtype), random_scores(500, steps=50), random_classes(500, 4)
    expected = oracle_detections.nms(boxes, scores, 0.5, classes)
    try:
        core.set_cpu_isa(name)
    except ValueError:
        pytest.skip(f"this build or CPU has no {name}")
    try:
        with gfl_ops.use_backend("native"):
            assert batched_nms(boxes, scores, classes, 0.5).tolist() == expected.tolist()
    finally:
        core.set_cpu_isa(before)


def test_by_hand(backend) -> None:
    """IoUs of 1/3 and 0: only what is strictly above the threshold suppresses."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [40, 0, 50, 10]], device=backend.device)
    scores = torch.tensor([0.2, 0.9, 0.5], device=backend.device)
    third = (torch.tensor(50.0) / torch.tensor(150.0)).item()
    assert nms(boxes, scores, third).tolist() == [1, 2, 0]
    assert nms(boxes, scores, third - 1e-6).tolist() == [1, 2]
    assert batched_nms(boxes, scores, torch.tensor([7, -7, 7], device=backend.device), 0.0).tolist() == [1, 2, 0]


def test_diou_lets_neighbours_stay(backend) -> None:
    """IoU 0.6; the centres are 2.5 apart and the enclosing box is 12.5 x 10, so DIoU is 0.6 - 6.25 / 256.25."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [2.5, 0, 12.5, 10]], device=backend.device)
    scores = torch.tensor([0.5, 0.9], device=backend.device)
    assert nms(boxes, scores, 0.59).tolist() == [1]
    assert nms(boxes, scores, 0.59, criterion="diou").tolist() == [1, 0]
    assert nms(boxes, scores, 0.57, criterion="diou").tolist() == [1]


def test_equal_scores_go_by_index(backend) -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [90, 0, 99, 9], [0, 0, 10, 10]], device=backend.device)
    for value in (0.5, 0.0, -INF):
        scores = torch.full((4,), value, device=backend.device)
        scores[2] = -0.0 if value == 0 else value
        assert nms(boxes, scores, 0.5).tolist() == [0, 2]


def test_large_coordinates_keep_their_precision(backend) -> None:
    """Moving classes apart by the largest coordinate would round these boxes to empty ones."""
    boxes = torch.tensor([[1e6, 0, 1e6 + 1, 1], [1e6 + 0.25, 0, 1e6 + 1.25, 1]], device=backend.device)
    scores = torch.tensor([0.9, 0.8], device=backend.device)
    classes = torch.tensor([79, 79], device=backend.device)
    assert batched_nms(boxes, scores, classes, 0.59).tolist() == [0]
    assert batched_nms(boxes, scores, classes, 0.61).tolist() == [0, 1]


def clusters(count: int, device: str) -> tuple[Tensor, Tensor, list[int]]:
    """Pairs of equal boxes that meet no others, in any order; and what of them stays: the better one of each."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    cell = (torch.arange(count) % (count // 2))[order]
    corner = torch.stack([cell % 500, cell // 500], 1) * 10.0
    scores = torch.rand(count, generator=torch.Generator().manual_seed(2))
    best: dict[int, int] = {}
    for i in scores.sort(descending=True, stable=True).indices.tolist():
        best.setdefault(int(cell[i]), i)
    return torch.cat([corner, corner + 8], 1).to(device), scores.to(device), list(best.values())


@only_backends(without=("host_cuda", "reference"))
def test_many_boxes(backend) -> None:
    boxes, scores, expected = clusters(100_000, backend.device)
    assert nms(boxes, scores, 0.5).tolist() == expected


@only_backends(without=("reference",))
def test_more_boxes_than_are_compared_at_once(backend) -> None:
    """On a GPU 5,120: what stays among them meets the rest."""
    boxes, scores, expected = clusters(5_400, backend.device)
    for classes in (None, torch.zeros(5_400, device=backend.device).long()):
        keep, count = nms_padded(boxes, scores, 0.5, classes)
        assert keep[:count].tolist() == expected and (keep[count:] == -1).all()
    keep, count = nms_padded(boxes, scores, 0.5, max_output=2_650)
    assert keep.tolist() == expected[:2650] and count == 2650


# ---- inputs that are not boxes -----------------------------------------------------------------------

HOSTILE = {
    "nan": [NAN, 0.0, 10.0, 10.0],
    "nan-size": [0.0, 0.0, 10.0, NAN],
    "infinite": [0.0, 0.0, INF, 10.0],
    "everything": [-INF, -INF, INF, INF],
    "infinitely-far": [INF, INF, INF, INF],
    "point": [5.0, 5.0, 5.0, 5.0],
    "line": [0.0, 5.0, 10.0, 5.0],
    "inverted": [10.0, 0.0, 0.0, 10.0],
    "twice-inverted": [10.0, 10.0, 0.0, 0.0],
    "overflowing": [-3e38, -3e38, 3e38, 3e38],
}


@pytest.mark.parametrize("criterion", ["iou", "diou"])
@pytest.mark.parametrize("box", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_box_overlaps_nothing(box: list[float], criterion: str, backend) -> None:
    """It stays and suppresses nothing, not even its like; the others meet as if it were not there."""
    good = [0.0, 0.0, 10.0, 10.0]
    boxes = torch.tensor([box, good, good, box], device=backend.device)
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6], device=backend.device)
    for threshold in (0.0, 0.5):
        assert nms(boxes, scores, threshold, criterion=criterion).tolist() == [0, 1, 3]


def test_boxes_without_a_score_are_dropped(backend) -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 4, device=backend.device)
    scores = torch.tensor([NAN, 0.1, NAN, 0.2], device=backend.device)
    assert nms(boxes, scores, 0.5).tolist() == [3]
    assert batched_nms(boxes, scores, torch.arange(4, device=backend.device), 0.5).tolist() == [3, 1]
    keep, count = nms_padded(boxes, scores * NAN, 0.5)
    assert keep.tolist() == [-1] * 4 and count.item() == 0


@pytest.mark.parametrize("layout", ["transposed", "every-other", "expanded"])
def test_layouts(layout: str, backend) -> None:
    boxes, scores = random_boxes(40).to(backend.device), random_scores(40).to(backend.device)
    expected = nms(boxes, scores, 0.3).tolist()
    if layout == "transposed":
        boxes = boxes.T.contiguous().T
    elif layout == "every-other":
        boxes, scores = boxes.repeat_interleave(2, 0)[::2], scores.repeat_interleave(2)[::2]
    else:
        boxes, expected = boxes[:1].expand(40, 4), [int(scores.argmax())]
    assert nms(boxes, scores, 0.3).tolist() == expected


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8])
def test_types_of_classes(dtype: torch.dtype, backend) -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 3, device=backend.device)
    scores = torch.tensor([0.9, 0.8, 0.7], device=backend.device)
    classes = torch.tensor([3, 4, 3], device=backend.device, dtype=dtype)
    assert batched_nms(boxes, scores, classes, 0.5).tolist() == [0, 1]


def test_the_extremes_of_int64_are_classes(backend) -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 4, device=backend.device)
    classes = torch.tensor([2**63 - 1, -(2**63), 2**63 - 1, 0], device=backend.device)
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6], device=backend.device)
    assert batched_nms(boxes, scores, classes, 0.5).tolist() == [0, 1, 3]


# ---- the result of fixed size ------------------------------------------------------------------------


@pytest.mark.parametrize("max_output", [None, 0, 1, 7, 1000])
def test_padded(max_output: int | None, backend) -> None:
    device = backend.device
    boxes, scores, classes = random_boxes(90).to(device), random_scores(90).to(device), random_classes(90, 3).to(device)
    expected = batched_nms(boxes, scores, classes, 0.3).tolist()
    assert 7 < len(expected) < 90
    keep, count = nms_padded(boxes, scores, 0.3, classes, max_output=max_output)
    size = 90 if max_output is None else max_output
    there = expected[:size]
    assert keep.shape == (size,) and count.shape == () and keep.dtype == count.dtype == torch.int64
    assert count.item() == len(there)
    assert keep.tolist() == there + [-1] * (size - len(there))


def test_no_boxes_are_counted(backend, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(77))
    for max_output in (None, 0, 3):
        keep, count = nms_padded(
            BOXES[:0].to(backend.device), SCORES[:0].to(backend.device), 0.5, max_output=max_output
        )
        assert keep.tolist() == [-1] * (max_output or 0) and count.item() == 0


def test_gradients_stop_here(backend) -> None:
    boxes = random_boxes(9).to(backend.device).requires_grad_()
    keep, count = nms_padded(boxes, boxes.sum(1), 0.5)
    assert not keep.requires_grad and not count.requires_grad


# ---- what holds of any suppression -------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("threshold", [0.1, 0.5])
def test_properties(threshold: float, seed: int, backend) -> None:
    device = backend.device
    boxes, scores = random_boxes(120, seed).to(device), random_scores(120, seed).to(device)
    classes = random_classes(120, 3, seed).to(device)
    keep = batched_nms(boxes, scores, classes, threshold)
    assert (scores[keep].diff() <= 0).all()

    again = batched_nms(boxes[keep], scores[keep], classes[keep], threshold)
    assert again.tolist() == list(range(len(keep)))  # NMS of an NMS is itself

    overlaps = gfl_ops.box_iou(boxes[keep], boxes[keep]) * (classes[keep, None] == classes[keep])
    overlaps.fill_diagonal_(0)
    assert (overlaps <= threshold + 1e-6).all()  # survivors do not overlap

    gone = torch.ones(120, dtype=torch.bool, device=device).index_fill(0, keep, False).nonzero().squeeze(1)
    better = scores[gone][:, None] <= scores[keep]
    meets = gfl_ops.box_iou(boxes[gone], boxes[keep]) * (classes[gone, None] == classes[keep]) * better
    assert (meets.amax(1) > threshold - 1e-6).all()  # each of the others met a better one

    order = torch.randperm(120, generator=torch.Generator().manual_seed(seed)).to(device)
    permuted = batched_nms(boxes[order], scores[order], classes[order], threshold)
    assert order[permuted].tolist() == keep.tolist()

    apart = batched_nms(boxes, scores, torch.arange(120, device=device), threshold)
    assert apart.tolist() == scores.sort(descending=True, stable=True).indices.tolist()
    together = batched_nms(boxes, scores, torch.full((120,), -5, device=device), threshold)
    assert together.tolist() == nms(boxes, scores, threshold).tolist()

    least = torch.cat([scores, scores.new_tensor([-1.0])])  # a box with the least score moves no other
    more = batched_nms(torch.cat([boxes, boxes[:1]]), least, torch.cat([classes, classes[:1]]), threshold)
    assert more.tolist() == keep.tolist()


# ---- registration, and errors ------------------------------------------------------------------------


def test_opcheck_and_compile(needs_native) -> None:
    boxes, scores, classes = random_boxes(20), random_scores(20), random_classes(20, 3)
    for some_classes in (None, classes):
        torch.library.opcheck(raw_op("nms"), (boxes, scores, some_classes, 0.5, 0, 20))
    with gfl_ops.use_backend("native"):
        expected = nms_padded(boxes, scores, 0.5, classes)
        for dynamic in (False, True):
            torch._dynamo.reset()
            compiled = torch.compile(nms_padded, fullgraph=True, dynamic=dynamic)
            for got, wanted in zip(compiled(boxes, scores, 0.5, classes), expected, strict=True):
                assert torch.equal(got, wanted)


def test_meta_tensors(needs_native) -> None:
    keep, count = nms_padded(random_boxes(9).to("meta"), random_scores(9).to("meta"), 0.5, max_output=4)
    assert keep.is_meta and keep.shape == (4,) and count.shape == ()
    with pytest.raises(RuntimeError, match=r"^nms: .* nms_padded has a fixed size"):
        nms(random_boxes(9).to("meta"), random_scores(9).to("meta"), 0.5)


BOXES, SCORES = torch.zeros(5, 4), torch.zeros(5)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"boxes": torch.zeros(5, 5)}, ValueError, r"boxes must be \(N, 4\), got \(5, 5\)"),
        ({"boxes": [[0, 0, 1, 1]]}, TypeError, "boxes must be a tensor, got list"),
        ({"boxes": BOXES.long()}, TypeError, "boxes must be float32.* got int64"),
        ({"scores": torch.zeros(4)}, ValueError, r"scores must be \(N,\) = \(5,\), got \(4,\)"),
        ({"scores": torch.zeros(5).to("meta")}, ValueError, "scores must be on cpu like boxes, got meta"),
        ({"idxs": torch.zeros(4).long()}, ValueError, r"idxs must be \(N,\) = \(5,\), got \(4,\)"),
        ({"idxs": torch.zeros(5)}, TypeError, "idxs must be integers, got float32"),
        ({"idxs": None}, TypeError, "idxs must be a tensor, got NoneType"),
        ({"iou_threshold": 1.5}, ValueError, r"iou_threshold must be in \[0, 1\].* got 1.5"),
        ({"iou_threshold": -0.1}, ValueError, r"iou_threshold must be in \[0, 1\].* got -0.1"),
        ({"iou_threshold": NAN}, ValueError, "iou_threshold must be .* got nan"),
        ({"iou_threshold": "0.5"}, TypeError, "iou_threshold must be a number, got str"),
        ({"criterion": "giou"}, ValueError, "criterion must be one of 'iou', 'diou', got 'giou'"),
    ],
)
def test_errors(change: dict[str, Any], error: type[Exception], words: str) -> None:
    good = {"boxes": BOXES, "scores": SCORES, "idxs": torch.zeros(5).long(), "iou_threshold": 0.5}
    with pytest.raises(error, match=f"^batched_nms: {words}"):
        batched_nms(**good | change)


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [(-1, ValueError, "at least 0 .* got -1"), (2.0, TypeError, "a whole number, got 2.0")],
)
def test_bad_max_output(value: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^nms_padded: max_output must be {words}"):
        nms_padded(BOXES, SCORES, 0.5, max_output=value)


def test_scores_in_double_make_it_double(backend) -> None:
    """In float32 the second box' area, and with it the union, would be infinite, and the overlap 0."""
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [-1e30, 0.0, 1.0, 1e30]], device=backend.device)
    scores = torch.tensor([0.9, 0.8], device=backend.device)
    assert gfl_ops.nms(boxes, scores, 0.0).tolist() == [0, 1]
    assert gfl_ops.nms(boxes, scores.double(), 0.0).tolist() == [0]
