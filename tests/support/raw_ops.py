"""The ops that gfl_ops registers with torch.library, and what the public functions pass to them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.backends import only_backends
from tests.support.running import map_tensors

with_raw_ops = only_backends(without=("reference", "host_cuda", "cuda", "triton_cuda"))
OF_THE_WHOLE_LOSS = (
    "gfl_assign",
    "positive_boxes_forward",
    "positive_boxes_backward",
    "box_losses",
    "multilevel_class_loss_forward",
    "multilevel_class_loss_backward",
)


def raw_op(name: str) -> Any:
    """Its only overload, whose name changes with what it is."""
    packet = getattr(torch.ops.gfl_ops, name)
    (overload,) = packet.overloads()
    return getattr(packet, overload)


class RecordRawOps(TorchDispatchMode):
    """What the public functions pass to the raw ops."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "gfl_ops":
            # Detached, as an autograd.Function's forward leaves them in effect.
            self.calls.append((func, *map_tensors(Tensor.detach, (args, kwargs or {}))))
        return func(*args, **(kwargs or {}))
