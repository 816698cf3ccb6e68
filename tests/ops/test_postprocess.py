"""Post-processing on every backend: against the eager pipeline, by hand, and what must hold of any."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import gfl_ops
from benchmarks.eager import oracle_detections
from gfl_ops import postprocess
from tests.support.backends import only_backends
from tests.support.detections import STRIDES, Head, head
from tests.support.raw_ops import raw_op

WITHOUT_TRITON = True

INF, NAN = torch.inf, torch.nan
on_devices = only_backends(without=("host_cuda", "reference"))


def widened(maps: list[Tensor]) -> list[Tensor]:
    return [x.cpu() if x.dtype == torch.float64 else x.cpu().float() for x in maps]


def assert_as_eager(found: gfl_ops.Detections, maps: Head, shapes: Any, scales: Any = None, **options: Any) -> None:
    """Same set, same order; boxes to 2e-3 pixels, scores to 1e-6; padded behind."""
    strides = options.pop("strides", STRIDES)
    cls_scores, bbox_preds = maps
    expected = oracle_detections.postprocess(
        widened(cls_scores),
        widened(bbox_preds),
        strides,
        shapes,
        scales,
        sigmoid=oracle_detections.sigmoid_that_ties,
        **options,
    )
    assert found.counts.tolist() == [len(scores) for _, scores, _ in expected]
    for image, (boxes, scores, labels) in zip(found.to_list(), expected, strict=True):
        assert image["labels"].tolist() == labels.tolist()
        torch.testing.assert_close(image["scores"].cpu(), scores, rtol=0, atol=1e-6)
        torch.testing.assert_close(image["boxes"].cpu(), boxes, rtol=1e-6, atol=2e-3)
    size = found.scores.shape[1]
    behind = torch.arange(size) >= found.counts.cpu()[:, None]
    assert (found.labels.cpu()[behind] == -1).all()
    assert not found.scores.cpu()[behind].any() and not found.boxes.cpu()[behind].any()


OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "few-candidates": {"nms_pre": 7},
    "one-candidate": {"nms_pre": 1},
    "few-detections": {"max_per_img": 5},
    "one-detection": {"max_per_img": 1},
    "many-detections": {"max_per_img": 3000, "nms_pre": 5000, "score_thr": 0.01, "iou_thr": 0.9},
    "threshold-0": {"score_thr": 0.0, "nms_pre": 60},
    "threshold-half": {"score_thr": 0.5},
    "threshold-1": {"score_thr": 1.0},
    "no-overlap": {"iou_thr": 0.0},
    "any-overlap": {"iou_thr": 1.0, "nms_pre": 100, "max_per_img": 1000},
    "large-ones": {"min_size": 40},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels-last"])
def test_against_eager(last: bool, name: str, backend) -> None:
    maps = head(device=backend.device)
    if last:
        maps = tuple([x.contiguous(memory_format=torch.channels_last) for x in level] for level in maps)
    shapes, scales = [(96, 160), (70, 111)], [(1.25, 1.6), (0.5, 0.75)]
    found = postprocess(*maps, STRIDES, shapes, scales, **OPTIONS[name])
    assert_as_eager(found, maps, shapes, scales, **OPTIONS[name])
    size = OPTIONS[name].get("max_per_img", 100)
    assert found.boxes.shape == (2, size, 4) and found.scores.shape == found.labels.shape == (2, size)
    assert found.edges is found.edge_std is found.edge_stride is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtypes(dtype: torch.dtype, backend) -> None:
    maps = head(dtype=dtype, device=backend.device)
    found = postprocess(*maps, STRIDES, [(96, 160)] * 2)
    assert_as_eager(found, maps, [(96, 160)] * 2)
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    assert {found.boxes.dtype, found.scores.dtype} == {compute}
    assert {found.labels.dtype, found.counts.dtype} == {torch.int64}
    assert {x.device.type for x in found[:4]} == {backend.device}


@pytest.mark.parametrize("scores", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("edges", [torch.float32, torch.float16, torch.float64])
def test_autocast_leaves_scores_and_edges_in_different_types(edges: torch.dtype, scores: torch.dtype, backend) -> None:
    maps = head(dtype=torch.bfloat16, device=backend.device)
    maps = ([x.to(scores) for x in maps[0]], [x.to(edges) for x in maps[1]])
    found = postprocess(*maps, STRIDES, [(96, 160)] * 2)
    with gfl_ops.use_backend("reference"):
        expected = postprocess(*([x.double().cpu() for x in level] for level in maps), STRIDES, [(96, 160)] * 2)
    assert found.labels.tolist() == expected.labels.tolist()
    assert {found.boxes.dtype, found.scores.dtype} == {
        torch.promote_types(torch.promote_types(scores, edges), torch.float32)
    }
    torch.testing.assert_close(found.boxes.cpu().double(), expected.boxes, rtol=0, atol=2e-3)


@pytest.mark.parametrize("bins", [2, 8, 33])
@pytest.mark.parametrize("classes", [1, 20, 81])
def test_sizes(classes: int, bins: int, backend) -> None:
    maps = head(64, 80, classes=classes, bins=bins, device=backend.device, mean=-5.0)
    assert_as_eager(postprocess(*maps, STRIDES, [(64, 80)] * 2), maps, [(64, 80)] * 2)


@on_devices
@pytest.mark.parametrize("mean", [-2.0, -6.0])
def test_a_whole_image(mean: float, backend) -> None:
    """As large as detectors run: more logits in a level than one thread searches at once."""
    maps = head(608, 800, batch=1, classes=80, device=backend.device, mean=mean)
    assert maps[0][0].numel() > 1 << 19
    assert_as_eager(postprocess(*maps, STRIDES, [(608, 800)]), maps, [(608, 800)])


@pytest.mark.parametrize("layout", ["cut-out", "every-other-row", "every-other-class", "expanded"])
def test_layouts(layout: str, backend) -> None:
    maps = head(device=backend.device)

    def dress(x: Tensor) -> Tensor:
        if layout == "cut-out":
            return torch.nn.functional.pad(x, (1, 2, 3, 1), value=9.0)[..., 3:-1, 1:-2]
        if layout == "every-other-row":
            return x.repeat_interleave(2, 2)[:, :, ::2]
        if layout == "every-other-class":
            return x.repeat_interleave(2, 1)[:, ::2]
        return x[:1].expand_as(x)

    dressed = tuple([dress(x) for x in level] for level in maps)
    assert_as_eager(postprocess(*dressed, STRIDES, [(96, 160)] * 2), dressed, [(96, 160)] * 2)


@pytest.mark.parametrize("pairs", ["tensors", "lists", "integers", "one-number"])
def test_shapes_and_scales(pairs: str, backend) -> None:
    maps = head(device=backend.device)
    shapes, scales = [(96, 160), (80, 120)], [(2.0, 2.0), (0.5, 0.5)]
    given: tuple[Any, Any] = (shapes, scales)
    if pairs == "tensors":
        given = tuple(torch.tensor(x, device=backend.device) for x in given)
    elif pairs == "integers":
        given = (torch.tensor(shapes, device=backend.device), torch.tensor([2.0, 0.5], device=backend.device))
    elif pairs == "one-number":
        given = (shapes, [2, 0.5])
    strides = [(s, s) for s in STRIDES] if pairs == "lists" else STRIDES
    assert_as_eager(postprocess(*maps, strides, *given), maps, shapes, scales)


@pytest.mark.parametrize("size", [(1, 6), (6, 1), (1, 1)])
def test_the_stride_of_a_single_row_or_column_means_nothing(size: tuple[int, int], backend) -> None:
    maps = head(*size, classes=5, strides=(1,), device=backend.device, mean=0.0)

    def dress(x: Tensor) -> Tensor:
        strides = [s if n > 1 else 7 for n, s in zip(x.shape, x.stride(), strict=True)]
        return x.as_strided(x.shape, strides)

    dressed = tuple([dress(x) for x in level] for level in maps)
    assert_as_eager(postprocess(*dressed, [1], [size] * 2), maps, [size] * 2, strides=[1])


CROWDS = {  # more scores than a GPU's list holds, at one place or close together
    "equal": lambda x: torch.zeros_like(x),
    "equal-but-few": lambda x: torch.where(x > x.flatten(1).topk(20).values[:, -1].view(-1, 1, 1, 1), x, -1.0),
    "neighbours": lambda x: 1.0 + x.flatten().argsort().argsort().view(x.shape) * 2.0**-23,
    "two-values": lambda x: (x > -3).float(),
}


@only_backends(without=("reference",))
@pytest.mark.parametrize("name", CROWDS)
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels-last"])
def test_crowded_scores(last: bool, name: str, backend) -> None:
    cls_scores, bbox_preds = head(128, 128, classes=6, strides=(4,), device=backend.device)
    cls_scores = [CROWDS[name](x.cpu()).to(backend.device) for x in cls_scores]
    if last:
        cls_scores = [x.contiguous(memory_format=torch.channels_last) for x in cls_scores]
    for nms_pre in (1, 300, 1000):
        options: dict[str, Any] = {"nms_pre": nms_pre, "iou_thr": 1.0, "max_per_img": 1000}
        found = postprocess(cls_scores, bbox_preds, [4], [(128, 128)] * 2, **options)
        assert found.counts.tolist() == [nms_pre] * 2
        assert_as_eager(found, (cls_scores, bbox_preds), [(128, 128)] * 2, strides=[4], **options)


@only_backends(without=("reference",))
def test_more_candidates_than_are_compared_at_once(backend) -> None:
    """On a GPU 5,120 of an image."""
    maps = head(54, 50, classes=2, strides=(1,), device=backend.device, mean=0.0)
    options: dict[str, Any] = {"score_thr": 0.0, "nms_pre": 6000, "max_per_img": 600, "iou_thr": 0.3}
    found = postprocess(*maps, [1], [(54, 50)] * 2, **options)
    with gfl_ops.use_backend("reference"):
        expected = postprocess(*([x.cpu() for x in level] for level in maps), [1], [(54, 50)] * 2, **options)
    assert found.counts.tolist() == expected.counts.tolist() and found.counts.min() > 100
    assert torch.equal(found.labels.cpu(), expected.labels)
    torch.testing.assert_close(found.boxes.cpu(), expected.boxes, rtol=1e-5, atol=2e-3)


# ---- by hand -----------------------------------------------------------------------------------------


def one_level(device: str, cells: dict[tuple[int, int, int], float], bins: int = 17) -> Head:
    """One image of 4 x 5 cells and 3 classes, with these logits at (class, row, column) and uniform edges."""
    scores = torch.full((1, 3, 4, 5), -20.0, device=device)
    for place, logit in cells.items():
        scores[(0, *place)] = logit
    return [scores], [torch.zeros(1, 4 * bins, 4, 5, device=device)]


def test_decoding_by_hand(backend) -> None:
    """Column 3, row 2, stride 16; left 1, top 2, right 0.5, bottom 4 bins: one or two bins with all the weight."""
    cls_scores, bbox_preds = one_level(backend.device, {(1, 2, 3): 1.0})
    bbox_preds[0] -= 1000
    for side, bins in enumerate([(1,), (2,), (0, 1), (4,)]):
        for k in bins:
            bbox_preds[0][0, side * 17 + k, 2, 3] = 0.0
    found = postprocess(cls_scores, bbox_preds, [16], [(80, 1000)], [(2.0, 4.0)], with_edges=True)
    assert found.counts.tolist() == [1] and found.labels[0, 0] == 1
    assert found.boxes[0, 0].tolist() == [(48 - 16) / 2, (32 - 32) / 4, (48 + 8) / 2, 80 / 4]  # bottom clipped
    assert abs(found.scores[0, 0].item() - 0.7310585786300049) < 1e-7
    assert found.edge_std[0, 0].tolist() == [0.0, 0.0, 0.5, 0.0]
    assert found.edge_stride[0, :2].tolist() == [16.0, 0.0]
    assert found.edges[0, 0, 2].tolist() == [0.5, 0.5] + [0.0] * 15


def test_equal_scores_go_by_level_cell_and_class(backend) -> None:
    cells = {(2, 3, 4): 1.0, (0, 3, 4): 1.0, (1, 0, 1): 1.0, (2, 0, 0): 1.0}
    a, b = one_level(backend.device, cells), one_level(backend.device, {(1, 0, 0): 1.0})
    found = postprocess([a[0][0], b[0][0]], [a[1][0], b[1][0]], [8, 8], [(1000, 1000)], iou_thr=1.0)
    assert found.labels[0, :5].tolist() == [2, 1, 0, 2, 1]
    assert found.boxes[0, :5, 2].tolist() == [64.0, 72.0, 96.0, 96.0, 64.0]
    best = postprocess(a[0], a[1], [8], [(1000, 1000)], nms_pre=3, iou_thr=1.0)
    assert best.labels[0, :4].tolist() == [2, 1, 0, -1]


def test_the_threshold_is_strict(backend) -> None:
    """sigmoid(0) is a half exactly, and the next logits above it have a score above that."""
    cells = {(0, 0, 0): 0.0, (1, 1, 1): 1e-6, (2, 2, 2): -1e-6}
    maps = one_level(backend.device, cells)
    found = postprocess(*maps, [8], [(99, 99)], score_thr=0.5)
    assert found.labels[0, :2].tolist() == [1, -1]
    assert postprocess(*maps, [8], [(99, 99)], score_thr=0.4999).counts.tolist() == [3]


def test_saturated_scores_are_equal(backend) -> None:
    """Logits of 20, 50 and infinity all have score 1; an infinitely negative one has score 0, which exceeds nothing."""
    maps = one_level(backend.device, {(2, 3, 3): INF, (1, 1, 1): 20.0, (0, 2, 0): 50.0, (0, 0, 0): -INF})
    found = postprocess(*maps, [8], [(99, 99)], score_thr=0.5, iou_thr=1.0)
    assert found.labels[0, :4].tolist() == [1, 0, 2, -1]
    assert found.scores[0, :3].tolist() == [1.0, 1.0, 1.0]
    assert postprocess(*maps, [8], [(99, 99)], score_thr=0.0, nms_pre=99).counts.item() <= 59


def test_nan_logits_are_dropped(backend) -> None:
    maps = one_level(backend.device, {(0, 0, 0): NAN, (1, 1, 1): 1.0, (2, 2, 2): 0.5})
    maps[1][0][0, 3, 1, 1] = NAN  # and so is a box that cannot be decoded
    found = postprocess(*maps, [8], [(99, 99)])
    assert found.labels[0, :2].tolist() == [2, -1]


def test_one_infinite_edge_logit_takes_its_limit(backend) -> None:
    cls_scores, bbox_preds = one_level(backend.device, {(1, 2, 3): 1.0})
    bbox_preds[0][0, [1, 17 + 1, 34 + 3, 51 + 3], 2, 3] = INF
    found = postprocess(cls_scores, bbox_preds, [8], [(99, 99)])
    assert found.boxes[0, 0].tolist() == [24 - 8.0, 16 - 8.0, 24 + 24.0, 16 + 24.0]


def test_boxes_that_are_too_small(backend) -> None:
    """Outside the clipped image nothing is left of a box; a width of exactly min_size does not exceed it."""
    maps = one_level(backend.device, {(0, 0, 0): 1.0, (1, 3, 4): 0.5})
    assert postprocess(*maps, [100], [(250, 350)]).labels[0, :3].tolist() == [0, 1, -1]
    assert postprocess(*maps, [1000], [(250, 350)]).labels[0, :3].tolist() == [0, 1, -1]
    assert postprocess(*maps, [8], [(0, 350)]).counts.tolist() == [0]
    wide = postprocess(*maps, [8], [(64, 64)], min_size=64)  # (0, 0, 64, 64) and (0, 0, 64, 64)
    assert wide.counts.tolist() == [0]
    assert postprocess(*maps, [8], [(64, 64)], min_size=63.9).counts.tolist() == [2]


# ---- distributions -----------------------------------------------------------------------------------


def test_edges(backend) -> None:
    """Distributions whose expectation is the box, and whose deviation is what it says."""
    maps = head(device=backend.device, dtype=torch.float64)
    found = postprocess(*maps, STRIDES, [(1e6, 1e6)] * 2, with_edges=True)
    plain = postprocess(*maps, STRIDES, [(1e6, 1e6)] * 2)
    for name in ("boxes", "scores", "labels", "counts"):
        assert torch.equal(getattr(found, name), getattr(plain, name))
    there = found.labels >= 0
    bins = torch.arange(17, device=backend.device, dtype=torch.float64)
    torch.testing.assert_close(found.edges.sum(-1), there[..., None].expand(-1, -1, 4).double())
    mean = found.edges @ bins
    deviation = (found.edges * (bins - mean[..., None]).square()).sum(-1).sqrt()
    torch.testing.assert_close(found.edge_std, deviation * there[..., None])
    assert (found.edge_std[there] > 0).all()
    reach = mean * found.edge_stride[..., None]
    boxes = found.boxes[there]
    whole = (boxes > 0).all(-1)
    width = (boxes[:, 2] - boxes[:, 0])[whole]
    assert whole.sum() > 20
    torch.testing.assert_close(width, (reach[there][:, 0] + reach[there][:, 2])[whole])


def test_sharp_edges_are_surer_than_flat_ones(backend) -> None:
    maps = one_level(backend.device, {(0, 0, 0): 2.0, (1, 3, 4): 1.0})
    maps[1][0][0, 5::17, 3, 4] = 20.0
    found = postprocess(*maps, [8], [(999, 999)], with_edges=True)
    flat, sharp = found.edge_std[0, 0], found.edge_std[0, 1]
    torch.testing.assert_close(flat.cpu(), torch.full((4,), 24.0**0.5), rtol=1e-5, atol=0)
    assert (sharp < 0.05).all()


# ---- the list ----------------------------------------------------------------------------------------


def test_to_list(backend) -> None:
    maps = head(device=backend.device)
    for with_edges in (False, True):
        found = postprocess(*maps, STRIDES, [(96, 160)] * 2, max_per_img=20, score_thr=0.6, with_edges=with_edges)
        assert found.counts.min() > 0 and found.counts.max() <= 20
        for image, detections in enumerate(found.to_list()):
            count = found.counts[image]
            names = {"boxes", "scores", "labels"} | ({"edges", "edge_std", "edge_stride"} if with_edges else set())
            assert set(detections) == names
            for name, x in detections.items():
                assert torch.equal(x, getattr(found, name)[image, :count])


# ---- nothing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "classes", "height", "width"), [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0), (1, 1, 1, 1)]
)
def test_nothing_to_look_at(batch: int, classes: int, height: int, width: int, backend) -> None:
    scores = torch.full((batch, classes, height, width), -9.0, device=backend.device)
    edges = torch.zeros(batch, 68, height, width, device=backend.device)
    found = postprocess([scores, scores], [edges, edges], [8, 16], [(64, 64)] * batch, with_edges=True, max_per_img=6)
    assert found.boxes.shape == (batch, 6, 4) and found.edges.shape == (batch, 6, 4, 17)
    assert found.counts.tolist() == [0] * batch
    assert (found.labels == -1).all()
    assert not any(x.any() for x in (found.boxes, found.scores, found.edges, found.edge_std, found.edge_stride))


# ---- what holds of any -------------------------------------------------------------------------------


def test_properties(backend) -> None:
    cls_scores, bbox_preds = head(device=backend.device, seed=5)
    shapes = [(96, 160)] * 2
    found = postprocess(cls_scores, bbox_preds, STRIDES, shapes)
    for image in found.to_list():
        assert (image["scores"].diff() <= 0).all() and (image["scores"] > 0.05).all()
        kept = gfl_ops.batched_nms(image["boxes"], image["scores"], image["labels"], 0.6)
        assert kept.tolist() == list(range(len(kept))) and len(kept) == len(image["boxes"])

    # What is below the threshold changes nothing.
    low = [torch.where(x.sigmoid() > 0.05, x, x - 3) for x in cls_scores]
    more = torch.full_like(cls_scores[0], -3.0)
    below = postprocess([*low, more], [*bbox_preds, bbox_preds[0]], [*STRIDES, 8], shapes)
    # Images do not see each other, and neither do classes.
    swapped = postprocess([x.flip(0) for x in cls_scores], [x.flip(0) for x in bbox_preds], STRIDES, shapes)
    for name in ("boxes", "scores", "labels", "counts"):
        assert torch.equal(getattr(below, name), getattr(found, name)), name
        assert torch.equal(getattr(swapped, name).flip(0), getattr(found, name)), name

    # Everything in half the size: half the boxes.
    halved = postprocess(cls_scores, bbox_preds, [s / 2 for s in STRIDES], [(48, 80)] * 2)
    torch.testing.assert_close(halved.boxes * 2, found.boxes)
    scaled = postprocess(cls_scores, bbox_preds, STRIDES, shapes, [2.0, 2.0])
    torch.testing.assert_close(scaled.boxes, halved.boxes)


def test_diou_keeps_more(backend) -> None:
    maps = head(device=backend.device, mean=-1.0)
    counts = [
        postprocess(*maps, STRIDES, [(96, 160)] * 2, max_per_img=2000, criterion=c).counts.sum().item()
        for c in ("iou", "diou")
    ]
    assert counts[0] < counts[1]


@on_devices
def test_run_to_run_and_at_any_number_of_threads(backend) -> None:
    maps = head(320, 320, classes=80, device=backend.device)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (before, 1, 2, before):
            torch.set_num_threads(threads)
            results.append(postprocess(*maps, STRIDES, [(320, 320)] * 2, with_edges=True))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_inputs_are_not_written_and_every_output_is(backend, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = head(device=backend.device)
    before = [x.clone() for level in maps for x in level]
    clean = postprocess(*maps, STRIDES, [(96, 160)] * 2, with_edges=True)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(NAN if "dtype" not in k else 77))
    dirty = postprocess(*maps, STRIDES, [(96, 160)] * 2, with_edges=True)
    assert all(torch.equal(a, b) for a, b in zip(clean, dirty, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, [x for level in maps for x in level], strict=True))


# ---- registration, and errors ------------------------------------------------------------------------


def test_opcheck_and_compile(needs_native) -> None:
    maps = head(64, 64)
    shapes, scales = torch.full((2, 2), 64.0), torch.full((2, 2), 1.5)
    numbers = [float(s) for s in STRIDES]
    for with_edges, some_scales in ((False, None), (True, scales)):
        arguments = (*maps, numbers, shapes, some_scales, 0.05, 100, 0.6, 20, 0.0, with_edges, 0)
        torch.library.opcheck(raw_op("postprocess"), arguments)
    with gfl_ops.use_backend("native"):
        expected = postprocess(*maps, STRIDES, shapes, with_edges=True)
        torch._dynamo.reset()
        compiled = torch.compile(lambda a, b, s: postprocess(a, b, STRIDES, s, with_edges=True), fullgraph=True)
        for got, wanted in zip(compiled(*maps, shapes), expected, strict=True):
            assert torch.equal(got, wanted)


def test_nothing_waits_for_the_device(needs_native) -> None:
    """Meta tensors have no values: whoever reads one on the host raises."""
    maps = head(64, 64, device="meta")
    found = postprocess(*maps, STRIDES, torch.zeros(2, 2, device="meta"), with_edges=True)
    real = postprocess(*head(64, 64), STRIDES, [(64, 64)] * 2, with_edges=True)
    for x, y in zip(found, real, strict=True):
        assert x.is_meta and (x.shape, x.dtype) == (y.shape, y.dtype)
