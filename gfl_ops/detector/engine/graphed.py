"""One training step as a CUDA graph: forward, loss, backward and update are a single launch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...ops.gfl_loss import PaddedTargets
from ..batch import Batch as Prepared
from ..data import Batch
from ..model import Detector
from .options import TrainOptions
from .step import OnLosses, autocast, clip, device_of

_FIRST_TARGETS = 16
_EAGER_STEPS = 3  # before a capture: libraries choose their algorithms, the optimiser allocates its state


class Outputs(NamedTuple):
    losses: dict[str, Tensor]
    norm: Tensor


Work = Callable[[], Outputs]


def captured(work: Work) -> Work:
    """Captures the work. The result replays it on the same memory.

    The mode lets the data loader's thread pin memory during the capture.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = work()

    def replay() -> Outputs:
        graph.replay()
        return outputs

    return replay


@dataclass
class _Inputs:
    """The buffers that every replay reads. Padding is 0, as between images of different sizes, and has no loss."""

    batch: Prepared
    targets: PaddedTargets

    @staticmethod
    def like(batch: Prepared, height: int, width: int, max_targets: int) -> _Inputs:
        pixels, images = batch.pixels, len(batch.pixels)
        channels_last = pixels.is_contiguous(memory_format=torch.channels_last)
        buffer = pixels.new_zeros(images, pixels.shape[1], height, width).contiguous(
            memory_format=torch.channels_last if channels_last else torch.contiguous_format
        )
        targets = PaddedTargets(
            torch.zeros(images, max_targets, 4, device=pixels.device),
            torch.zeros(images, max_targets, dtype=torch.int64, device=pixels.device),
            torch.zeros(images, dtype=torch.int64, device=pixels.device),
        )
        image_shapes, padded_shapes, scale_factors = (torch.zeros_like(x) for x in batch[1:4])
        return _Inputs(Prepared(buffer, image_shapes, padded_shapes, scale_factors, targets), targets)

    @property
    def size(self) -> tuple[int, int, int]:
        """Height and width of the pixels, and the number of targets that an image can have."""
        height, width = self.batch.pixels.shape[2:]
        return height, width, self.targets.labels.shape[1]

    def fill(self, batch: Prepared) -> None:
        height, width = batch.pixels.shape[2:]
        if batch.pixels.shape != self.batch.pixels.shape:
            self.batch.pixels.zero_()
        self.batch.pixels[:, :, :height, :width] = batch.pixels
        for name in ("image_shapes", "padded_shapes", "scale_factors"):
            getattr(self.batch, name).copy_(getattr(batch, name))
        boxes, labels, counts = self.targets
        assert counts is not None and isinstance(batch.targets, list)
        counts.copy_(torch.tensor([len(target["labels"]) for target in batch.targets]), non_blocking=True)
        for i, target in enumerate(batch.targets):
            boxes[i, : len(target["boxes"])] = target["boxes"]
            labels[i, : len(target["labels"])] = target["labels"]


class GraphedStep:
    """Takes the place of :class:`EagerStep` on one GPU.

    Batches are copied into buffers of a fixed size. If a batch is larger than the buffers, or has an image with more
    targets, the buffers grow and the step is captured again. Before each capture a few steps run eagerly.

    Args:
        record: makes a function that repeats the step's work; the tests give another.
    """

    def __init__(
        self,
        model: Detector,
        optimizer: torch.optim.Optimizer,
        clip_norm: float | None,
        options: TrainOptions,
        record: Callable[[Work], Work] = captured,
    ) -> None:
        self.model, self.optimizer, self.clip_norm = model, optimizer, clip_norm
        self.options, self.record = options, record
        self.device = device_of(model)
        self.rates = make_capturable(optimizer, self.device)
        self.inputs: _Inputs | None = None
        self.eager_steps, self.captures = 0, 0
        self.replay: Work | None = None

    def __call__(self, parts: list[Batch], rate: float, on_losses: OnLosses) -> Tensor:
        (batch,) = parts
        self._take(batch)
        for group, own_rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            own_rate.fill_(rate * group.get("factor", 1.0))
        if self.replay is None and self.eager_steps >= _EAGER_STEPS:
            self.replay = self.record(self._work)
            self.captures += 1
        if self.replay is None:
            outputs = self._eagerly()
            self.eager_steps += 1
        else:
            outputs = self.replay()
        # Copies: the next replay overwrites these.
        on_losses({name: loss.detach().clone() for name, loss in outputs.losses.items()}, batch)
        return outputs.norm.clone()

    def _take(self, batch: Batch) -> None:
        prepared = self.model.prepare(batch.images, batch.targets, batch.short_sides)
        assert isinstance(prepared.targets, list)
        most = max(len(target["labels"]) for target in prepared.targets)
        height, width = prepared.pixels.shape[2:]
        old = self.inputs.size if self.inputs is not None else (0, 0, _FIRST_TARGETS)
        if self.inputs is None or height > old[0] or width > old[1] or most > old[2]:
            room = max(old[2], 1 << (most - 1).bit_length()) if most > 0 else old[2]
            self.inputs = _Inputs.like(prepared, max(height, old[0]), max(width, old[1]), room)
            self.replay, self.eager_steps = None, 0
        self.inputs.fill(prepared)

    def _work(self) -> Outputs:
        """In a capture the gradients are allocated in the graph's own memory, where each replay writes them."""
        assert self.inputs is not None
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.options, self.device):
            losses, _ = self.model.loss_of(self.inputs.batch)
        torch.stack(list(losses.values())).sum().backward()
        norm = clip(self.model, self.clip_norm)
        self.optimizer.step()
        return Outputs(losses, norm)

    def _eagerly(self) -> Outputs:
        """On a stream of its own, as a capture: what libraries set up for the default stream does not help there."""
        if self.device.type != "cuda":
            return self._work()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            outputs = self._work()
        torch.cuda.current_stream().wait_stream(stream)
        return outputs


def make_capturable(optimizer: torch.optim.Optimizer, device: torch.device) -> list[Tensor]:
    """Prepares an optimiser for capture: it reads nothing on the host, and its groups' learning rates are the returned
    tensors."""
    rates = [torch.zeros((), device=device) for _ in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group.update(lr=rate, fused=True, foreach=False)
        if "capturable" in group:
            group["capturable"] = device.type == "cuda"
    for state in optimizer.state.values():
        if "step" in state:  # that of a run that began without a graph is on the host
            state["step"] = state["step"].to(device, torch.float32)
    return rates
