"""The command ``gfl``: train, evaluate, predict, and what one wants to know before."""

from .main import main

__all__ = ["main"]
