"""Raw ops in torch's registry, so that torch.compile, fake tensors and profilers know them.

Library.define with an implementation and a fake kernel, and an autograd.Function around it: custom_op and
register_autograd do the same at two to three times the cost of a call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_library = torch.library.Library("gfl_ops", "DEF")


def register(schema: str, kernel: Callable[..., Any], fake: Callable[..., Any]) -> Callable[..., Any]:
    """Defines gfl_ops::<schema> with one kernel for CPU and CUDA; returns the callable."""
    name = schema[: schema.index("(")]
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    for key in ("CPU", "CUDA"):
        _library.impl(name, kernel, key)
    torch.library.register_fake(f"gfl_ops::{name}", fake, lib=_library)
    return getattr(torch.ops.gfl_ops, name).default
