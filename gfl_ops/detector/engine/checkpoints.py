"""A run's checkpoints: complete, atomic, the last few and the best."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checkpoint import save_checkpoint, write_atomically

_FORMAT = 1


class Checkpoints:
    """``checkpoints/`` of a run's folder.

    ``<iteration>.pth`` has all that a run needs to go on; ``best.safetensors`` and ``last.safetensors`` are weights for
    :func:`gfl_ops.detector.load_checkpoint`, with the model's name and classes beside them.
    """

    def __init__(self, run: Path, keep: int = 3) -> None:
        self.folder, self.keep = run / "checkpoints", keep

    def prepare(self) -> None:
        """Makes the folder, and removes what a process that was killed has left half written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(".*.pth.*"):
            left.unlink()
        for left in self.folder.glob(".*.safetensors.*"):
            left.unlink()

    def paths(self) -> list[Path]:
        """Of the states, the newest first."""
        return sorted(self.folder.glob("[0-9]*.pth"), reverse=True)

    def save(self, state: dict[str, Any]) -> Path:
        path = self.folder / f"{state['iteration']:08d}.pth"
        write_atomically(path, lambda file: torch.save({"format": _FORMAT, **state}, file))
        for old in self.paths()[self.keep :]:
            old.unlink()
        return path

    def save_weights(self, name: str, model: nn.Module, meta: dict[str, Any]) -> Path:
        path = self.folder / f"{name}.safetensors"
        save_checkpoint(model, path, meta)
        return path

    def load(self, path: Path | None = None) -> dict[str, Any] | None:
        """The state in ``path``, or the newest that can be read; None where there is none."""
        for candidate in [path] if path is not None else self.paths():
            try:
                state = torch.load(candidate, map_location="cpu", weights_only=True)
                if state.get("format") != _FORMAT:
                    raise ValueError(f"is not a state of a run, format {state.get('format')!r}")
                return state
            except Exception as error:  # a damaged disk, a file of something else: the one before it may be whole
                if path is not None:
                    raise ValueError(f"{candidate}: cannot be resumed from: {error}") from error
                warnings.warn(f"{candidate}: cannot be read ({error}); trying the one before it", stacklevel=2)
        return None


def write_json(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=2) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))
