"""The recipes' optimisers, and a moving average of the weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Generic, TypeVar

import torch
from torch import nn

from ..settings import Recipe


def build_optimizer(model: nn.Module, recipe: Recipe, learning_rate: float) -> torch.optim.Optimizer:
    """SGD or AdamW with the recipe's rules for biases and weight decay.

    A group of parameters has ``factor``, by which the learning rate of every iteration is multiplied for it.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter, of_conv in _named(model):
        if parameter.requires_grad:
            rules = _factor(recipe, name, of_conv), _decay(recipe, name, parameter)
            groups.setdefault(rules, []).append(parameter)
    options = [
        {"params": parameters, "weight_decay": decay, "lr": learning_rate * factor, "factor": factor}
        for (factor, decay), parameters in groups.items()
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(options, lr=learning_rate, momentum=recipe.momentum)
    return torch.optim.AdamW(options, lr=learning_rate)


def _named(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, bool]]:
    """Each parameter with its name, and whether it is a convolution's."""
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            yield name, parameter, isinstance(module, nn.Conv2d)


def _factor(recipe: Recipe, name: str, of_conv: bool) -> float:
    return recipe.bias_rate if of_conv and name.endswith("bias") else 1.0


def _decay(recipe: Recipe, name: str, parameter: nn.Parameter) -> float:
    if recipe.no_decay is not None:
        none = any(part in name for part in recipe.no_decay)
    else:
        none = recipe.optimizer == "adamw" and parameter.ndim <= 1
    factor = recipe.bias_decay if name.endswith("bias") else 1.0
    return 0.0 if none else recipe.weight_decay * factor


Model = TypeVar("Model", bound=nn.Module)


class Average(Generic[Model]):
    """An exponential moving average of a model's parameters, with its current buffers.

    Early updates weigh more: after i updates, the new weights count with at least 9 / (10 + i).
    """

    def __init__(self, model: Model, decay: float) -> None:
        self.model: Model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: Model, updates: int) -> None:
        weight = 1 - min(self.decay, (1 + updates) / (10 + updates))
        for average, parameter in zip(self.model.parameters(), model.parameters(), strict=True):
            average.lerp_(parameter.detach(), weight)
        for copied, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            copied.copy_(buffer)
