"""A run's checkpoints: the last few complete states, and the best and the last weights."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import save_checkpoint, write_atomically
from ..model import Detector

_FORMAT = 1


class Checkpoints:
    """``checkpoints/`` of a run's folder.

    ``<iteration>.pth`` is a state from which the run can be resumed. ``best.safetensors`` and ``last.safetensors`` are
    weights for :func:`gfl_ops.detector.load_checkpoint`, with the model's name and classes.
    """

    def __init__(self, run: Path, keep: int = 3) -> None:
        self.folder, self.keep = run / "checkpoints", keep

    def prepare(self) -> None:
        """Creates the folder, and removes files that a killed process has left half written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for unfinished in self.folder.glob(".*.pth.*"):
            unfinished.unlink()
        for unfinished in self.folder.glob(".*.safetensors.*"):
            unfinished.unlink()

    def paths(self) -> list[Path]:
        """The files of the states, the newest first."""
        return sorted(self.folder.glob("[0-9]*.pth"), reverse=True)

    def save(self, state: dict[str, Any]) -> Path:
        path = self.folder / f"{state['iteration']:08d}.pth"
        write_atomically(path, lambda file: torch.save({"format": _FORMAT, **state}, file))
        for old in self.paths()[self.keep :]:
            old.unlink()
        return path

    def save_weights(self, name: str, model: Detector, meta: dict[str, Any]) -> Path:
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
            except Exception as error:  # a damaged file, or one of something else: the one before it may be good
                if path is not None:
                    raise ValueError(f"{candidate}: cannot be resumed from: {error}") from error
                warnings.warn(f"{candidate}: cannot be read ({error}); trying the one before it", stacklevel=2)
        return None


def write_json(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=2) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))
