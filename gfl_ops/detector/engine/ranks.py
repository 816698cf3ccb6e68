"""One process, or several that torchrun has started."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import distributed

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    rank: int
    world_size: int
    device: torch.device
    restarts: int = 0
    """How often torchrun has started these processes anew after a failure."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """Every rank's value, on every rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        distributed.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        if self.world_size > 1:
            distributed.barrier()


@contextlib.contextmanager
def connect(device: str | None = None) -> Iterator[Ranks]:
    """Joins the processes that torchrun's environment variables tell of; there need not be any.

    ``device`` is "cpu" or "cuda"; None takes the GPUs where there are any, one a process.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if kind.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device must be cpu where torch finds no GPU, got {kind}")
    rank, local_rank = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_RANK", "0"))
    place = torch.device(kind)
    if place.type == "cuda" and place.index is None:
        place = torch.device("cuda", local_rank)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if world_size == 1:
        yield Ranks(0, 1, place, restarts)
        return
    distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Ranks(rank, world_size, place, restarts)
    finally:
        distributed.destroy_process_group()
