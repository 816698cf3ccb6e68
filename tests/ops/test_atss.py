"""ATSS: the native assignment against the reference, and what must hold of any assignment."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import gfl_ops
from gfl_ops import atss_assign
from tests.support.backends import only_backends
from tests.support.raw_ops import raw_op
from tests.support.running import map_tensors

WITHOUT_TRITON = True

STRIDES = (8, 16, 32, 64, 128)
BACKGROUND, OUTSIDE = -1, -2

native_backends = only_backends(without=("reference",))


@pytest.fixture
def assign(backend):
    """atss_assign on one backend: tensors go there, and the result comes back."""

    def on_device(*args, **kwargs) -> tuple[Tensor, Tensor]:
        args, kwargs = map_tensors(lambda x: x.to(backend.device), (args, kwargs))
        return map_tensors(Tensor.cpu, atss_assign(*args, **kwargs))

    return on_device


def pyramid(height: int, width: int) -> list[tuple[int, int]]:
    return [(-(-height // stride), -(-width // stride)) for stride in STRIDES]


def random_gts(seed: int, batch: int, gts: int, height: int, width: int, dtype=torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(batch, gts, 2, generator=generator) * torch.tensor([width, height]) * 1.2 - 30
    size = torch.rand(batch, gts, 2, generator=generator) ** 2 * 300 + 1
    counts = torch.randint(0, gts + 1, (batch,), generator=generator)
    return torch.cat([corner, corner + size], 2).to(dtype), counts


@pytest.mark.parametrize("topk", [1, 9, 32, 50])
@pytest.mark.parametrize("center_offset", [0.0, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("height", "width"), [(640, 640), (333, 500), (64, 700), (8, 8)])
@native_backends
def test_native_is_the_reference(height, width, dtype, center_offset, topk, assign) -> None:
    boxes, counts = random_gts(height + topk, 3, 40, height, width, dtype)
    valid = torch.tensor([[height, width], [height // 2, width * 2 // 3], [1, 1]])
    arguments = (boxes, counts, pyramid(height, width), STRIDES, valid)
    gt, iou = assign(*arguments, topk=topk, center_offset=center_offset)
    with gfl_ops.use_backend("reference"):
        expected_gt, expected_iou = atss_assign(*arguments, topk=topk, center_offset=center_offset)
    assert torch.equal(gt, expected_gt)
    torch.testing.assert_close(iou, expected_iou, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("topk", [33, 200, 1000, 2**31 - 1])
@native_backends
def test_more_candidates_than_some_levels_have_cells(topk, dtype, assign) -> None:
    """Also from far away, where distances tie up to rounding."""
    boxes, counts = random_gts(topk, 2, 12, 200, 300, dtype)
    boxes[1, :4] += torch.tensor([3e4, 1e7, 1e20, -2e5])[:, None]
    arguments = (boxes, counts.clamp(min=5), pyramid(200, 300), STRIDES, torch.tensor([[200, 300], [70, 160]]))
    gt, iou = assign(*arguments, topk=topk)
    with gfl_ops.use_backend("reference"):
        expected_gt, expected_iou = atss_assign(*arguments, topk=topk)
    assert (gt >= 0).any()
    assert torch.equal(gt, expected_gt)
    torch.testing.assert_close(iou, expected_iou, rtol=1e-6, atol=1e-7)


def test_by_hand(assign) -> None:
    """One level of stride 8 and a box that is an anchor: of its 9 candidates only that anchor reaches the threshold."""
    boxes = torch.tensor([[[40.0, 40.0, 104.0, 104.0], [0.0, 0.0, 64.0, 64.0]]])
    gt, iou = assign(boxes, torch.tensor([1]), [(16, 16)], [8])
    assert gt.shape == iou.shape == (1, 256)
    assert gt.dtype == torch.int32 and iou.dtype == torch.float32
    assert (gt >= 0).nonzero().tolist() == [[0, 9 * 16 + 9]]
    assert iou[0, 9 * 16 + 9] == 1.0


def test_the_highest_iou_wins_and_the_first_of_equal_ones(assign) -> None:
    anchor = [40.0, 40.0, 104.0, 104.0]
    smaller = [44.0, 44.0, 100.0, 100.0]
    for boxes, winner in (([smaller, anchor], 1), ([anchor, smaller], 0), ([anchor, anchor], 0)):
        gt, _ = assign(torch.tensor([boxes]), torch.tensor([2]), [(16, 16)], [8])
        assert gt[0, 9 * 16 + 9] == winner


def test_one_candidate_has_no_deviation(assign) -> None:
    gt, _ = assign(torch.tensor([[[0.0, 0.0, 64.0, 64.0]]]), torch.tensor([1]), [(1, 1)], [64])
    assert gt.tolist() == [[BACKGROUND]]


def test_permuting_the_gts_permutes_the_assignment(assign) -> None:
    boxes, _ = random_gts(3, 1, 25, 512, 640)
    order = torch.randperm(25, generator=torch.Generator().manual_seed(0))
    count = torch.tensor([25])
    gt, iou = assign(boxes, count, pyramid(512, 640), STRIDES)
    permuted_gt, permuted_iou = assign(boxes[:, order], count, pyramid(512, 640), STRIDES)
    named = torch.where(permuted_gt >= 0, order[permuted_gt.clamp(min=0).long()].int(), permuted_gt)
    assert torch.equal(named, gt)
    assert torch.equal(permuted_iou, iou)


def test_padding_and_other_images_change_nothing(assign) -> None:
    boxes, counts = random_gts(4, 3, 20, 400, 400)
    shapes = pyramid(400, 400)
    padded = torch.cat([boxes, torch.full((3, 7, 4), torch.nan)], 1)
    together = assign(padded, counts, shapes, STRIDES)
    for image in range(3):
        alone = assign(boxes[image : image + 1, : counts[image]], counts[image : image + 1], shapes, STRIDES)
        assert torch.equal(together[0][image], alone[0][0])
        assert torch.equal(together[1][image], alone[1][0])


def test_scaling_everything_changes_nothing(assign) -> None:
    boxes, counts = random_gts(5, 2, 30, 512, 512)
    shapes = pyramid(512, 512)
    gt, iou = assign(boxes, counts, shapes, STRIDES)
    scaled = assign(boxes * 4, counts, shapes, [stride * 4 for stride in STRIDES])
    assert torch.equal(scaled[0], gt)
    torch.testing.assert_close(scaled[1], iou, rtol=1e-5, atol=1e-6)


def test_cells_outside_the_valid_part(assign) -> None:
    boxes = torch.tensor([[[0.0, 0.0, 200.0, 200.0]]])
    gt, _ = assign(boxes, torch.tensor([1]), [(32, 32), (16, 16)], [8, 16], torch.tensor([[100, 64]]))
    fine, coarse = gt[0, :1024].view(32, 32), gt[0, 1024:].view(16, 16)
    assert (fine[:13, :8] != OUTSIDE).all() and (coarse[:7, :4] != OUTSIDE).all()
    assert (fine == OUTSIDE).sum() == 1024 - 13 * 8
    assert (coarse == OUTSIDE).sum() == 256 - 7 * 4


HOSTILE = {
    "nan": [torch.nan, 0.0, 50.0, 50.0],
    "infinite": [-torch.inf, 0.0, torch.inf, 50.0],
    "no area": [40.0, 40.0, 40.0, 90.0],
    "inverted": [90.0, 90.0, 40.0, 40.0],
    "outside": [9000.0, 9000.0, 9100.0, 9100.0],
    "before": [-900.0, -900.0, -800.0, -800.0],
}


@pytest.mark.parametrize("box", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_boxes_claim_nothing(box: list[float], assign) -> None:
    good = [40.0, 40.0, 104.0, 104.0]
    expected, _ = assign(torch.tensor([[good]]), torch.tensor([1]), pyramid(256, 256), STRIDES)
    assert (expected >= 0).any()
    gt, iou = assign(torch.tensor([[good, box]]), torch.tensor([2]), pyramid(256, 256), STRIDES)
    assert torch.equal(gt, expected)
    assert iou.isfinite().all()


@pytest.mark.parametrize(("batch", "gts"), [(2, 0), (0, 3), (1, 1)])
def test_nothing_to_assign(batch: int, gts: int, assign) -> None:
    shapes = pyramid(64, 64)
    boxes = torch.zeros(batch, gts, 4)
    gt, iou = assign(boxes, torch.zeros(batch, dtype=torch.int64), shapes, STRIDES)
    assert gt.shape == (batch, sum(h * w for h, w in shapes))
    assert (gt == BACKGROUND).all() and (iou == 0).all()


def test_a_count_beyond_the_padding_is_the_padding(assign) -> None:
    boxes, _ = random_gts(6, 1, 5, 256, 256)
    shapes = pyramid(256, 256)
    expected = assign(boxes, torch.tensor([5]), shapes, STRIDES)
    for label_type in (torch.int64, torch.int32, torch.int16):
        many = assign(boxes, torch.tensor([99], dtype=label_type), shapes, STRIDES)
        assert torch.equal(many[0], expected[0])


def test_opcheck_and_compile(needs_native) -> None:
    boxes, counts = random_gts(7, 2, 6, 128, 128)
    arguments = (boxes, counts, [16, 8], [16, 8], [8.0, 16.0], None, 9, 8.0, 0.0)
    torch.library.opcheck(raw_op("atss_assign"), arguments)
    compiled = torch.compile(lambda b, c: atss_assign(b, c, [(16, 16), (8, 8)], [8, 16]), fullgraph=True)
    with gfl_ops.use_backend("native"):
        for got, expected in zip(
            compiled(boxes, counts), atss_assign(boxes, counts, [(16, 16), (8, 8)], [8, 16]), strict=True
        ):
            assert torch.equal(got, expected)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"gt_boxes": torch.zeros(2, 4)}, ValueError, r"gt_boxes must be \(B, G, 4\), got \(2, 4\)"),
        ({"gt_boxes": torch.zeros(1, 2, 4).long()}, TypeError, "gt_boxes must be float32.* got int64"),
        ({"gt_counts": torch.tensor([1.0])}, TypeError, "gt_counts must be int64.* got float32"),
        ({"gt_counts": torch.tensor([1, 2])}, ValueError, r"gt_counts must be \(B,\) = \(1,\), got \(2,\)"),
        ({"strides": [8, 16]}, ValueError, "strides must have one entry for each of 1 levels, got 2"),
        ({"strides": [0]}, ValueError, "strides must be above 0 .* got 0"),
        ({"level_shapes": [(8, 8)] * 9}, ValueError, "level_shapes must have 1 to 8 levels, got 9"),
        ({"strides": 8}, TypeError, "strides must be a list of numbers, got int"),
        ({"level_shapes": (8, 8)}, TypeError, r"level_shapes must be a list of \(height, width\) pairs, got int"),
        ({"level_shapes": [(8, 8, 8)]}, ValueError, r"level_shapes must be \(height, width\) pairs, got \(8, 8, 8\)"),
        ({"level_shapes": [(8, -1)]}, ValueError, "level_shapes must be at least 0 .* got -1"),
        ({"level_shapes": [(8, 8.5)]}, TypeError, "level_shapes must be a whole number, got 8.5"),
        ({"valid_shapes": torch.zeros(1, 2, dtype=torch.complex64)}, TypeError, "valid_shapes must hold floats or"),
        ({"valid_shapes": torch.zeros(3, 2)}, ValueError, r"valid_shapes must be \(B, 2\) = \(1, 2\), got \(3, 2\)"),
        ({"topk": 0}, ValueError, "topk must be at least 1 .* got 0"),
        ({"topk": 1.5}, TypeError, "topk must be a whole number, got 1.5"),
    ],
)
def test_errors(change: dict, error: type[Exception], words: str) -> None:
    good = {
        "gt_boxes": torch.zeros(1, 2, 4),
        "gt_counts": torch.tensor([2]),
        "level_shapes": [(8, 8)],
        "strides": [8],
    }
    with pytest.raises(error, match=f"atss_assign: {words}"):
        atss_assign(**(good | change))
