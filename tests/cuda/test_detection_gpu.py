"""NMS and post-processing on a real GPU: nobody waits, graphs take new inputs, and results are the CPU's.

Their other tests run there, too, as the `cuda` backend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import gfl_ops
from benchmarks.harness.cuda_graph import captured, no_host_sync
from gfl_ops import nms_padded, postprocess
from tests.support.detections import STRIDES, head, random_boxes, random_classes, random_scores
from tests.support.gpu import needs_gpu

pytestmark = pytest.mark.gpu
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=lambda d: str(d)[6:])


def boxes_to_suppress(seed: int, count: int) -> list[Tensor]:
    return [random_boxes(count, seed).cuda(), random_scores(count, seed).cuda(), random_classes(count, 5, seed).cuda()]


def suppress(boxes: Tensor, scores: Tensor, classes: Tensor) -> list[Tensor]:
    return [*nms_padded(boxes, scores, 0.5, classes), *nms_padded(boxes, scores, 0.5, max_output=50, criterion="diou")]


def outputs_of_a_head(seed: int, dtype: torch.dtype, last: bool = False) -> list[Tensor]:
    """Class logits, then edge logits, then shapes and scales."""
    cls_scores, bbox_preds = head(320, 352, classes=80, seed=seed, dtype=dtype, device="cuda")
    maps = [x.contiguous(memory_format=torch.channels_last) if last else x for x in (*cls_scores, *bbox_preds)]
    shapes = torch.tensor([[320.0, 352.0], [300.0 - seed, 351.0]], device="cuda")
    return [*maps, shapes, torch.tensor([[1.5, 1.25], [0.5, 1.0 + seed]], device="cuda")]


def detect(*inputs: Tensor) -> list[Tensor]:
    levels = len(STRIDES)
    maps = list(inputs[:levels]), list(inputs[levels : 2 * levels])
    return [*postprocess(*maps, STRIDES, *inputs[2 * levels :], with_edges=True)]


def assert_a_graph_takes_new_inputs(run: Callable[..., list[Tensor]], inputs: list[list[Tensor]]) -> None:
    static = [x.clone() for x in inputs[0]]
    with gfl_ops.use_backend("native"):
        graph, outputs = captured(lambda: run(*static))
        for others in (*inputs[1:], inputs[0]):
            for mine, other in zip(static, others, strict=True):
                mine.copy_(other)
            graph.replay()
            for got, expected in zip(outputs, run(*others), strict=True):
                assert torch.equal(got, expected)


@pytest.mark.parametrize("count", [1, 100, 1000, 12_000])
def test_a_graph_of_nms(count: int) -> None:
    needs_gpu()
    assert_a_graph_takes_new_inputs(suppress, [boxes_to_suppress(seed, count) for seed in range(3)])


@DTYPES
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels-last"])
def test_a_graph_of_post_processing(last: bool, dtype: torch.dtype) -> None:
    needs_gpu()
    assert_a_graph_takes_new_inputs(detect, [outputs_of_a_head(seed, dtype, last) for seed in range(3)])


def test_the_host_never_waits() -> None:
    needs_gpu()
    boxes, inputs = boxes_to_suppress(1, 6000), outputs_of_a_head(1, torch.float32)
    maps = head(64, 64, device="cuda")
    calls: list[Callable[[], Any]] = [
        lambda: suppress(*boxes),
        lambda: detect(*inputs),
        lambda: postprocess(*maps, STRIDES, [(64, 64), (60, 64)], [1.0, (2.0, 1.5)]),
    ]
    with gfl_ops.use_backend("native"):
        for call in calls:
            call()  # what is loaded lazily may wait
            torch.cuda.synchronize()
            with no_host_sync():
                call()


@pytest.mark.parametrize("count", [100, 5000, 20_000])
def test_nms_as_on_the_cpu(count: int) -> None:
    needs_gpu()
    for boxes in (boxes_to_suppress(2, count), boxes_to_suppress(3, count)):
        for got, expected in zip(suppress(*boxes), suppress(*(x.cpu() for x in boxes)), strict=True):
            assert got.tolist() == expected.tolist()


@DTYPES
def test_detections_as_on_the_cpu(dtype: torch.dtype) -> None:
    needs_gpu()
    cls_scores, bbox_preds = head(800, 1344, classes=80, dtype=dtype, device="cuda", mean=-4.0)
    found = postprocess(cls_scores, bbox_preds, STRIDES, [(800, 1333)] * 2, with_edges=True)
    on_cpu = postprocess(
        [x.cpu() for x in cls_scores], [x.cpu() for x in bbox_preds], STRIDES, [(800, 1333)] * 2, with_edges=True
    )
    assert found.labels.tolist() == on_cpu.labels.tolist()
    for name in ("boxes", "scores", "edges", "edge_std", "edge_stride"):
        torch.testing.assert_close(getattr(found, name).cpu(), getattr(on_cpu, name), rtol=1e-5, atol=2e-3)


def test_run_to_run() -> None:
    """Which thread comes first differs from run to run; the result does not."""
    needs_gpu()
    inputs, boxes = outputs_of_a_head(5, torch.float16), boxes_to_suppress(5, 7000)
    first = [*detect(*inputs), *suppress(*boxes)]
    for _ in range(20):
        assert all(torch.equal(a, b) for a, b in zip(first, [*detect(*inputs), *suppress(*boxes)], strict=True))
