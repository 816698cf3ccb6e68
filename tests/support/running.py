"""Run one case: the outputs, and the gradients for fixed random incoming gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Result:
    outputs: tuple[Tensor, ...]
    grads: dict[str, Tensor]

    def named(self) -> dict[str, Tensor]:
        return {f"output {i}": x for i, x in enumerate(self.outputs)} | {f"grad {k}": g for k, g in self.grads.items()}


def map_tensors(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (tuple, list)):
        return type(value)(map_tensors(change, item) for item in value)
    if isinstance(value, dict):
        return {name: map_tensors(change, item) for name, item in value.items()}
    return value


def to_double(inputs: dict[str, Any]) -> dict[str, Any]:
    return map_tensors(lambda x: x.double() if x.is_floating_point() else x, inputs)


def to_compute(inputs: dict[str, Any]) -> dict[str, Any]:
    """Half types widened to float32, as the contract has it."""
    half = (torch.float16, torch.bfloat16)
    return map_tensors(lambda x: x.float() if x.dtype in half else x, inputs)


def as_tuple(output: Any) -> tuple[Tensor, ...]:
    return tuple(output) if isinstance(output, tuple) else (output,)


def require_grad(inputs: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The same tensors, those named as fresh leaves with their strides kept."""
    return inputs | {name: inputs[name].detach().requires_grad_() for name in names}


def incoming_gradients(outputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Random, and in 64ths, so that every dtype and device has the same ones; not 1 even for a scalar."""
    generator = torch.Generator().manual_seed(77)
    return [((torch.randint(32, 97, x.shape, generator=generator)) / 64).to(x.device, x.dtype) for x in outputs]


def run(
    function: Callable[..., Any], inputs: dict[str, Any], kwargs: dict[str, Any], differentiable: tuple[str, ...]
) -> Result:
    inputs = require_grad(inputs, differentiable)
    outputs = as_tuple(function(**inputs, **kwargs))
    attached = [x for x in outputs if x.requires_grad]
    if differentiable:
        assert attached, "no output is attached to the graph"
        torch.autograd.backward(attached, incoming_gradients(tuple(attached)))
    return Result(tuple(x.detach() for x in outputs), {name: inputs[name].grad for name in differentiable})


def run_case(module: Any, case: Any, inputs: dict[str, Any]) -> Result:
    return run(getattr(module, case.op), inputs, case.kwargs, case.differentiable)
