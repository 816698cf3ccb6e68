"""The whole GFL loss on a GPU, or as if: launches, waiting for the device, captured graphs, memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import gfl_ops
from benchmarks.harness.cuda_graph import captured, no_host_sync
from benchmarks.harness.random_head import LOSSES, Head, gradients, head, losses_of, padded
from gfl_ops import PaddedTargets, gfl_loss
from tests.support import host_cuda
from tests.support.gpu import needs_gpu


def static_copy(inputs: Head, most: int, device: str) -> Head:
    """The same with padded targets, on a device."""
    targets = PaddedTargets(*(x.to(device) for x in padded(inputs.targets, most)))
    return replace(inputs.to(device), targets=targets)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("options", [{}, {"beta": 1.5}], ids=["usual", "beta"])
def test_at_most_twelve_launches(options: dict, dtype: torch.dtype, needs_native) -> None:
    """Three assign, two weigh the positives, two take their boxes, one finishes the box losses, two do the classes; the
    backward has one for either. The head is large enough for every sum to need its second launch."""
    inputs = static_copy(head(61, (40, 3), (320, 320), classes=20, dtype=dtype), 50, "cpu").map(lambda x: x.to(dtype))
    with host_cuda.route(), gfl_ops.use_backend("native"):
        before = host_cuda.launches()
        losses = losses_of(gfl_loss, inputs, **options)
        forward = host_cuda.launches() - before
        gradients(losses, inputs, (2.0, 0.5, 3.0))
        both = host_cuda.launches() - before
        with torch.no_grad():
            losses_of(gfl_loss, inputs, **options)
        without_gradient = host_cuda.launches() - before - both
    assert (forward, both, without_gradient) == (10, 12, 10)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=lambda d: str(d)[6:])
def test_no_host_sync(dtype: torch.dtype) -> None:
    needs_gpu()
    listed = head(62, (7, 0, 30), (320, 320), classes=80, valid=0.9).to("cuda").map(lambda x: x.to(dtype))
    with gfl_ops.use_backend("native"):
        for inputs in (listed, static_copy(listed, 40, "cuda")):
            gradients(losses_of(gfl_loss, inputs), inputs)  # what is loaded lazily may wait
            with no_host_sync():
                gradients(losses_of(gfl_loss, inputs), inputs)


@pytest.mark.gpu
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["maps", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=lambda d: str(d)[6:])
def test_a_captured_graph_takes_new_targets(dtype: torch.dtype, layout: torch.memory_format) -> None:
    needs_gpu()
    heads = [
        static_copy(head(seed, gts, (320, 352), classes=80), 40, "cuda").map(
            lambda x: x.to(dtype).to(memory_format=layout)
        )
        for seed, gts in ((63, (7, 3)), (64, (40, 0)), (65, (1, 25)))
    ]
    static = heads[0].map(torch.clone)
    static = replace(static, targets=PaddedTargets(*(x.clone() for x in static.targets)))

    def step() -> list[torch.Tensor]:
        losses = losses_of(gfl_loss, static)
        return [*losses, *gradients(losses, static)]

    with gfl_ops.use_backend("native"):
        graph, outputs = captured(step)
        for other in (*heads[1:], heads[0]):
            with torch.no_grad():
                torch._foreach_copy_([*static.maps, *static.targets], [*other.maps, *other.targets])
            graph.replay()
            losses = losses_of(gfl_loss, other)
            for got, expected in zip(outputs, [*losses, *gradients(losses, other)], strict=True):
                assert torch.equal(got, expected)


@pytest.mark.gpu
def test_launches_of_a_step_on_a_gpu() -> None:
    """Torch's own included, of which only the sum of the losses and its gradient's way back are not the loss's."""
    needs_gpu()
    inputs = static_copy(head(66, (40, 3), (320, 320), classes=80), 50, "cuda")
    with gfl_ops.use_backend("native"):
        ones = [torch.ones((), device="cuda") for _ in LOSSES]
        torch.autograd.grad(losses_of(gfl_loss, inputs), inputs.maps, ones)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            torch.autograd.grad(losses_of(gfl_loss, inputs), inputs.maps, ones)
            torch.cuda.synchronize()
    on_device = [event.name for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    assert 0 < len(on_device) <= 12, on_device


@pytest.mark.gpu
def test_memory_on_a_gpu_does_not_grow_with_the_gts() -> None:
    needs_gpu()
    peaks = []
    for gts in (7, 1000):
        inputs = static_copy(head(67, (gts,), (800, 1344), classes=80), gts, "cuda")
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with gfl_ops.use_backend("native"):
            gradients(losses_of(gfl_loss, inputs), inputs)
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] <= 1.05 * peaks[0]
