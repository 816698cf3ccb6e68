"""The list of all cases, and what adds a row to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.support.case_maker import Case, Maker

CASES: list[Case] = []


def row(op: str, name: str, build: Callable[[Maker], dict[str, Any]], **options: Any) -> None:
    fields = {key: options.pop(key) for key in ("differentiable", "large", "scale", "smooth") if key in options}
    CASES.append(Case(op, name, build, kwargs=options, **fields))


REDUCTIONS = ("none", "sum", "mean")
EXPONENTS = (2.0, 1.0, 1.5, 0.0)


def with_weight(make: Maker, inputs: dict[str, Any], weight: Tensor | None, avg: str | None = None) -> dict[str, Any]:
    if weight is not None:
        inputs["weight"] = weight
    if avg is not None:
        shape = {"0-d": (), "1-d": (1,)}[avg]
        inputs["avg_factor"] = torch.full(shape, 7.25, dtype=make.compute_dtype, device=make.device)
    return inputs
