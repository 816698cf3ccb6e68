"""One process, or several that torchrun has started."""

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
    place = torch.device(kind)
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
    """Waits for every rank, and returns a name for this gathering: the same on all, never one of an earlier one.

    torchrun lends its store to the processes that it starts anew, with all that the dead ones wrote. Without a name
    of their own in it, the new ones read the dead ones' addresses and fail to connect, or wait for ever. Its count of
    restarts is no such name: each machine counts its own.
    """
    store.set(f"gfl_ops/{rank}/came", uuid.uuid4().hex)
    deadline = time.monotonic() + limit
    came, seen = ([f"gfl_ops/{other}/{what}" for other in range(world_size)] for what in ("came", "seen"))
    while time.monotonic() < deadline:
        if store.check(came):
            name = b"-".join(store.multi_get(came))
            store.set(f"gfl_ops/{rank}/seen", name)
            # Whoever has seen this process' new word is alive.
            if store.check(seen) and all(other == name for other in store.multi_get(seen)):
                return uuid.uuid5(uuid.NAMESPACE_OID, name.decode()).hex
        time.sleep(0.02)
    raise TimeoutError(f"rank {rank} of {world_size} waited {limit:g} s for the others to start")
