"""Batches whose contents depend only on the seed and the number of the iteration.

The numbers of workers and of processes change nothing: the batch of all ranks together is split among them, and every
sample is augmented by a generator seeded with its place in the epoch. So a run can be resumed from the number of
iterations that are done.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from .augment import Augment
from .sample import DetectionData, Sample


class Batch(NamedTuple):
    images: list[Tensor]
    targets: list[dict[str, Tensor]]
    short_sides: list[int] | None
    image_ids: list[int]


class Place(NamedTuple):
    """A place in an epoch, and the image that comes there."""

    epoch: int
    slot: int
    image: int


class EpochBatches(Sampler[list[Place]]):
    """Endless batches of one rank, from a given iteration on.

    Images are grouped into landscape and portrait, so that batches need little padding. A group's last batch is
    filled up with its first images: every image comes at least once in an epoch.

    Args:
        sizes: (N, 2) height and width of each image.
        batch_size: of each rank.
        start: how many iterations are done.
    """

    def __init__(
        self,
        sizes: NDArray[np.int64],
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
    ) -> None:
        self.portrait = sizes[:, 0] > sizes[:, 1]
        self.batch_size, self.seed, self.rank, self.world_size, self.start = batch_size, seed, rank, world_size, start
        groups = np.bincount(self.portrait, minlength=2)
        self.iterations_per_epoch = int((-(-groups // (batch_size * world_size))).sum())

    def __iter__(self) -> Iterator[list[Place]]:
        epoch, skipped = divmod(self.start, self.iterations_per_epoch)
        while True:
            for slot, batch in list(enumerate(self._epoch(epoch)))[skipped:]:
                first = slot * self.batch_size * self.world_size
                own = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
                yield [Place(epoch, first + i, int(index)) for i, index in list(enumerate(batch))[own]]
            epoch, skipped = epoch + 1, 0

    def _epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        """The batches of all ranks together."""
        generator = np.random.default_rng([self.seed, epoch])
        order = generator.permutation(len(self.portrait))
        size = self.batch_size * self.world_size
        batches = []
        for portrait in (False, True):
            group = order[self.portrait[order] == portrait]
            if len(group):
                filled = np.resize(group, -(-len(group) // size) * size)
                batches += np.split(filled, len(filled) // size)
        return [batches[i] for i in generator.permutation(len(batches))]


class _Augmented(Dataset[Sample]):
    def __init__(self, data: DetectionData, augment: Augment, seed: int) -> None:
        self.data, self.augment, self.seed = data, augment, seed

    def __getitem__(self, place: Place) -> Sample:
        generator = np.random.default_rng([self.seed, place.epoch, place.slot, 1])
        return self.augment(self.data[place.image], generator)


def training_loader(
    data: DetectionData, batches: EpochBatches, augment: Augment, *, workers: int = 0, pin_memory: bool = False
) -> DataLoader[Sample]:
    """An endless sequence of :class:`Batch`."""
    if len(data) == 0:
        raise ValueError("training_loader: data must have images, got none")
    return DataLoader(
        _Augmented(data, augment, batches.seed),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # so that the loader draws nothing from the global one, which checkpoints hold
    )


class _Share(Dataset[Sample]):
    def __init__(self, data: DetectionData, indices: range) -> None:
        self.data, self.indices = data, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Sample:
        return self.data[self.indices[i]]


def evaluation_loader(
    data: DetectionData, batch_size: int, *, rank: int = 0, world_size: int = 1, workers: int = 0
) -> DataLoader[Sample]:
    """Each image once, in order. Every rank gets its share."""
    share = _Share(data, range(rank, len(data), world_size))
    return DataLoader(share, batch_size, num_workers=workers, collate_fn=collate, generator=torch.Generator())


def collate(samples: list[Sample]) -> Batch:
    sides = [sample.short_side for sample in samples if sample.short_side is not None]
    return Batch(
        [sample.image for sample in samples],
        [{"boxes": sample.boxes, "labels": sample.labels} for sample in samples],
        sides or None,
        [sample.image_id for sample in samples],
    )
