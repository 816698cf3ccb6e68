"""Reading and writing weights: this library's files, mmdet's, the original GFocal's, ImageNet backbones."""

from __future__ import annotations

import json
import os
import pickle
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from . import foreign

if TYPE_CHECKING:
    from .model import Detector

_COUNTER = "num_batches_tracked"  # older files lack it, and inference does not use it
_SHOWN = 20  # names of each kind in an error's text; the error's attributes hold all of them


class CheckpointError(ValueError):
    """A file that is not a checkpoint, or holds more than tensors and plain values."""


class CheckpointMismatch(CheckpointError):
    """A checkpoint of another model: what is missing, what is unexpected, and which shapes differ."""

    def __init__(self, path: Path, missing: list[str], unexpected: list[str], shapes: list[str]) -> None:
        self.missing, self.unexpected, self.shapes = missing, unexpected, shapes
        kinds = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
        lines = [f"load_checkpoint: {path} does not fit the model; nothing was loaded"]
        for kind, names in kinds.items():
            if names:
                more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
                lines.append(f"  {kind} ({len(names)}): {', '.join(names[:_SHOWN])}{more}")
        super().__init__("\n".join(lines))


@dataclass(frozen=True)
class LoadReport:
    """What :func:`load_checkpoint` did with a file."""

    path: Path
    loaded: int
    """How many tensors were loaded."""
    dropped: tuple[str, ...]
    """Names in the file that were not loaded: an ImageNet backbone's classifier, and what ``leave`` excluded."""
    initial: tuple[str, ...]
    """Names in the model that kept their values: neck and head beside a backbone, and what ``leave`` excluded."""
    averaged: bool
    """Whether the loaded weights are a moving average."""
    meta: dict[str, Any] = field(default_factory=dict)
    """What the file says about itself: mmdet's ``meta``, or what was given to :func:`save_checkpoint`."""
    notes: tuple[str, ...] = ()
    """What was done to make the file fit, or the model: another geometry, a class more or less."""


@dataclass
class _File:
    tensors: dict[str, Tensor]
    meta: dict[str, Any]
    averaged: bool = False
    dropped: list[str] = field(default_factory=list)


def load_checkpoint(
    model: Detector,
    path: str | Path,
    *,
    weights: Literal["best", "raw"] = "best",
    leave: Sequence[str] = (),
) -> LoadReport:
    """Loads a file into a detector, all of it or nothing.

    Takes safetensors and torch files of this library; mmdet's published ones, also those with the names of before its
    2.0; mmengine's, with or without a moving average; those of the original GFocal, whose geometry the model then has
    (the report's ``notes`` say so), and of GFocalV2; and ImageNet backbones as torchvision and mmdet name them, for
    the backbone alone. torch files are read with ``weights_only=True``: one that holds other objects is refused.

    Args:
        model: from :func:`build`.
        path: the file.
        weights: of a file with a moving average: ``"best"`` takes the average, ``"raw"`` the weights beside it.
        leave: prefixes of names. Such tensors may be missing or have another shape; the model then keeps its own.
            ``["bbox_head.gfl_cls"]`` is for training on with other classes.

    Raises:
        CheckpointError: the file cannot be read safely.
        CheckpointMismatch: names or shapes differ; the model is as it was.
    """
    path = Path(path)
    file = _interpret(path, _read(path), weights)
    placed = foreign.place_backbone(model.backbone, file.tensors)
    backbone_only, fitted = placed is not None, None
    if placed is not None:
        file.tensors, file.dropped = placed
    else:
        fitted = foreign.fit(model.bbox_head, file.tensors, file.meta)
        file.tensors = fitted.tensors
    own = model.state_dict()
    wanted = set(own)
    if backbone_only:
        absent = tuple(f"backbone.{start}" for start in model.backbone.file_may_lack)
        wanted = {x for x in own if x in file.tensors or (x.startswith("backbone.") and not x.startswith(absent))}
    for name in wanted:
        if name.endswith(_COUNTER) and name not in file.tensors:
            file.tensors[name] = own[name]

    missing = sorted(wanted - file.tensors.keys())
    unexpected = sorted(file.tensors.keys() - own.keys())
    differing = sorted(name for name, x in file.tensors.items() if name in own and x.shape != own[name].shape)
    left = {name for name in (*missing, *unexpected, *differing) if name.startswith(tuple(leave))}
    shapes = [f"{name} {tuple(file.tensors[name].shape)} for {tuple(own[name].shape)}" for name in differing]
    shapes = [text for name, text in zip(differing, shapes, strict=True) if name not in left]
    missing, unexpected = [x for x in missing if x not in left], [x for x in unexpected if x not in left]
    if missing or unexpected or shapes:
        raise CheckpointMismatch(path, missing, unexpected, shapes)

    taken = {name: x for name, x in file.tensors.items() if name not in left}
    model.load_state_dict(taken, strict=False)
    if fitted is not None and fitted.inclusive:
        foreign.use_inclusive_boxes(model.bbox_head)
        model.config = replace(model.config, head=model.bbox_head.config)
    return LoadReport(
        path,
        len(taken),
        (*file.dropped, *sorted(left & file.tensors.keys())),
        tuple(name for name in own if name not in taken),
        file.averaged,
        file.meta,
        () if fitted is None else tuple(fitted.notes),
    )


def read_meta(path: str | Path) -> dict[str, Any]:
    """What a file of weights says about itself; see :class:`LoadReport`."""
    path = Path(path)
    return _interpret(path, _read(path), "best").meta


def save_checkpoint(model: Detector, path: str | Path, meta: dict[str, Any] | None = None) -> None:
    """Writes a model's weights. An existing file is replaced in one step and never left half written.

    Args:
        model: from :func:`build`.
        path: ``.safetensors``, or ``.pth`` or ``.pt`` for a torch file that mmdet reads too.
        meta: plain values to keep beside the weights.
    """
    path = Path(path)
    meta = dict(meta or {})
    if model.config.head.priors.inclusive:
        meta[foreign.INCLUSIVE] = True
    tensors = {name: x.detach().cpu().contiguous() for name, x in model.state_dict().items()}
    if path.suffix == ".safetensors":
        content = _safetensors().torch.save(tensors, {"format": "pt", "meta": json.dumps(meta)})
        write_atomically(path, lambda file: file.write(content))
    elif path.suffix in (".pth", ".pt"):
        write_atomically(path, lambda file: torch.save({"meta": meta, "state_dict": tensors}, file))
    else:
        raise ValueError(f"save_checkpoint: path must end in .safetensors, .pth or .pt, got {path.name!r}")


def write_atomically(path: Path, write: Any) -> None:
    """Writes a temporary file in the same folder, flushes it to the disk, and renames it to ``path``."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _read(path: Path) -> tuple[Any, dict[str, Any]]:
    """The file's content, and the metadata of a safetensors file."""
    if not path.is_file():
        raise FileNotFoundError(f"load_checkpoint: there is no file {path}")
    if path.suffix == ".safetensors":
        library = _safetensors()
        try:
            with library.safe_open(path, framework="pt") as file:
                about = (file.metadata() or {}).get("meta", "{}")
                return {name: file.get_tensor(name) for name in file.keys()}, json.loads(about)  # noqa: SIM118
        except (library.SafetensorError, json.JSONDecodeError) as error:
            raise CheckpointError(f"load_checkpoint: {path} is not a safetensors file: {error}") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True), {}
    except pickle.UnpicklingError as error:
        reason = str(error).replace("\n", " ")
        raise CheckpointError(
            f"load_checkpoint: {path} holds more than tensors and plain values, or is no torch file; it was not read, "
            f"since unpickling runs what it contains ({reason[:300]})"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise CheckpointError(f"load_checkpoint: {path} is not a torch file: {error}") from error


def _safetensors() -> Any:
    try:
        import safetensors
        import safetensors.torch
    except ImportError as error:
        raise ImportError(
            "a .safetensors file needs the safetensors package: pip install 'gfl_ops[detector]'"
        ) from error
    return safetensors


def _interpret(path: Path, read: tuple[Any, dict[str, Any]], weights: str) -> _File:
    """The tensors by name, whichever program wrote the file."""
    content, meta = read
    if weights not in ("best", "raw"):
        raise ValueError(f"load_checkpoint: weights must be 'best' or 'raw', got {weights!r}")
    if not isinstance(content, Mapping):
        raise CheckpointError(f"load_checkpoint: {path} holds a {type(content).__name__}, not weights by name")
    averaged = False
    if "state_dict" in content:
        # mmengine swaps the two when it saves: state_dict is the average, ema_state_dict what was trained.
        averaged = "ema_state_dict" in content and weights == "best"
        chosen = "ema_state_dict" if "ema_state_dict" in content and weights == "raw" else "state_dict"
        meta, content = dict(content.get("meta") or {}), content[chosen]
        if chosen == "ema_state_dict":
            content = {name: x for name, x in content.items() if name != "steps"}
    tensors = {}
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"load_checkpoint: {path}: {name} must be a tensor, got {type(value).__name__}")
        tensors[name.removeprefix("module.")] = value
    return _File(tensors, meta, averaged)
