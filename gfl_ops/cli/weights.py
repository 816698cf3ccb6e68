"""Loads a trained model, for the commands that use one."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from ..detector import Detector, build, get_config
from ..detector.checkpoint import read_meta
from ..detector.command.options import option
from ..detector.command.shared import InputOptions, with_input


@dataclass(frozen=True, kw_only=True)
class ModelOptions(InputOptions):
    section: ClassVar[str] = "model"
    model: str | None = option("a name from `gfl models`, if the file does not say it")


def load_model(weights: Path | None, options: ModelOptions) -> tuple[Detector, list[str]]:
    """The model of a file of weights, and its classes. ``options`` overrides what the file says."""
    path = weights if weights is not None else _newest_weights()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    meta = read_meta(path)
    name = options.model or meta.get("model")
    if name is None:
        raise ValueError(f"{path}: does not say which model it belongs to; give --model")
    classes = meta.get("classes") or (meta.get("dataset_meta") or {}).get("classes") or meta.get("CLASSES")
    classes = [f"class {i}" for i in range(80)] if classes is None else [str(x) for x in classes]
    config = get_config(str(name))
    if isinstance(meta.get("input"), dict):  # of a run, which may have had another size
        size = meta["input"]
        sizes = {name: size[name] for name in ("short_side", "long_side", "divisor")}
        config = replace(config, input=replace(config.input, **sizes, train_short_sides=None))
    return build(with_input(config, options), len(classes), weights=path), classes


def _newest_weights() -> Path:
    found = sorted(Path("runs").glob("*/checkpoints/best.safetensors"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError("no weights: give a file of them; runs/ has none of a run of `gfl train`")
    print(f"weights: {found[-1]}", file=sys.stderr)
    return found[-1]
