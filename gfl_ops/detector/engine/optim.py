"""The recipes' optimisers, and a moving average of the weights."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

from ..config import Recipe


def build_optimizer(model: nn.Module, recipe: Recipe, learning_rate: float) -> torch.optim.Optimizer:
    """SGD as in mmdet's recipes, or AdamW without weight decay of biases and normalisations."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(trained, lr=learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate)


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
