"""The models by name: one file for each family."""

from .build import build, get_config, list_models

__all__ = ["build", "get_config", "list_models"]
