"""Raw ops in torch's registry, so that torch.compile, fake tensors and profilers know them.

Library.define with an implementation and a fake kernel, and an autograd.Function around it: custom_op and
register_autograd do the same at two to three times the cost of a call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_PLAIN = (Tensor, torch.nn.Parameter)
_SEQUENCES = (list, tuple)
_library = torch.library.Library("gfl_ops", "DEF")


def _somebody_watches() -> bool:
    """Whether a call must go through torch's registry: tracers, modes, transforms and profilers see it only there."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._len_torch_function_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._get_tracing_state() is not None
        or torch._C._autograd._profiler_enabled()
    )


def register(schema: str, kernel: Callable[..., Any], fake: Callable[..., Any]) -> Callable[..., Any]:
    """Defines gfl_ops::<schema> with one kernel for CPU and CUDA; returns the callable.

    Where nobody watches, the callable goes to the kernel itself: the registry's way to a kernel in Python costs 10 us.
    """
    name = schema[: schema.index("(")]
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    for key in ("CPU", "CUDA"):
        _library.impl(name, kernel, key)
    torch.library.register_fake(f"gfl_ops::{name}", fake, lib=_library)
    op = getattr(torch.ops.gfl_ops, name).default

    def call(first: Any, *args: Any) -> Any:
        tensor = first[0] if type(first) in _SEQUENCES and first else first
        if type(tensor) in _PLAIN and (tensor.is_cpu or tensor.is_cuda) and not _somebody_watches():
            return kernel(first, *args)
        return op(first, *args)

    return call
