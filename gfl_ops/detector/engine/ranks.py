"""The processes of a run: one, or several that torchrun has started."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
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
    """How often torchrun has restarted the processes after a failure."""

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
    """Joins the other processes, if torchrun has started several.

    ``device`` is "cpu" or "cuda"; None takes the GPUs if there are any, one for each process.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device must be cpu where torch finds no GPU, got {name}")
    place = torch.device(name)
    if place.type == "cuda" and place.index is None:
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if place.type == "cuda":
        torch.cuda.set_device(place)
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if world_size == 1:
        yield Ranks(0, 1, place, restarts)
        return
    from torch.distributed.rendezvous import rendezvous  # not in every build of torch

    store, rank, world_size = next(rendezvous("env://"))
    store = distributed.PrefixStore(meet(store, rank, world_size), store)  # type: ignore[attr-defined]
    backend = "nccl" if place.type == "cuda" else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size)
    try:
        yield Ranks(rank, world_size, place, restarts)
    finally:
        distributed.destroy_process_group()


def meet(store: Any, rank: int, world_size: int, limit: float = 600) -> str:
    """Waits for every rank, and returns a name for the group: the same on all ranks, and never that of an earlier one.

    When torchrun restarts the processes, the new ones get the same store, with all that the dead ones wrote. Without a
    name of their own they would read the addresses of the dead ones, and fail to connect or wait for ever. torchrun's
    count of restarts is no such name, since each machine counts for itself.
    """
    store.set(f"gfl_ops/{rank}/came", uuid.uuid4().hex)
    deadline = time.monotonic() + limit
    came, seen = ([f"gfl_ops/{other}/{what}" for other in range(world_size)] for what in ("came", "seen"))
    while time.monotonic() < deadline:
        if store.check(came):
            name = b"-".join(store.multi_get(came))
            store.set(f"gfl_ops/{rank}/seen", name)
            # Only a live process can have seen this process' new entry.
            if store.check(seen) and all(other == name for other in store.multi_get(seen)):
                return uuid.uuid5(uuid.NAMESPACE_OID, name.decode()).hex
        time.sleep(0.02)
    raise TimeoutError(f"rank {rank} of {world_size} waited {limit:g} s for the others to start")
