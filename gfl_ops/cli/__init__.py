"""The command ``gfl``."""

from .main import main

__all__ = ["main"]
