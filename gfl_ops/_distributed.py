"""What the losses need of the other processes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def start_mean_over_ranks(x: Tensor) -> Callable[[], Tensor]:
    """Starts averaging a small tensor; what it returns waits for the result (on the device, not on the host)."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return lambda: x
    x = x / torch.distributed.get_world_size()
    work = torch.distributed.all_reduce(x, async_op=True)

    def finish() -> Tensor:
        if work is not None:
            work.wait()
        return x

    return finish
