"""The learning rate of every iteration, as a function of its number."""

from __future__ import annotations

import math

from ..settings import Recipe


def total_iterations(recipe: Recipe, iterations_per_epoch: int) -> int:
    return recipe.iterations if recipe.iterations is not None else recipe.epochs * iterations_per_epoch


def learning_rate_factor(recipe: Recipe, iteration: int, iterations_per_epoch: int) -> float:
    """The factor of the recipe's learning rate: a warmup times steps or half a cosine."""
    total = total_iterations(recipe, iterations_per_epoch)
    warmup = 1.0
    if iteration < recipe.warmup_iterations:
        grown = iteration / recipe.warmup_iterations if recipe.warmup == "linear" else 0.0
        warmup = recipe.warmup_factor + (1 - recipe.warmup_factor) * grown
    if recipe.schedule == "cosine":
        return warmup * 0.5 * (1 + math.cos(math.pi * min(iteration / total, 1)))
    epoch = iteration // iterations_per_epoch
    return warmup * float(0.1 ** sum(epoch >= milestone for milestone in recipe.milestones))
