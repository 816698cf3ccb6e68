"""What other programs call a model's tensors, and what else of their files has to be made to fit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .backbones import Backbone
from .heads import DenseHead, Points

_V1_PROJECT = "bbox_head.distribution_project.project"
_OLD_LAST_CONV = re.compile(r"bbox_head\.(?:fcos|fovea)_(cls|reg|centerness)\.(weight|bias)")
INCLUSIVE = "inclusive_boxes"  # of a file's meta: boxes end on their last pixel


@dataclass
class Fitted:
    """A detector's tensors under this library's names."""

    tensors: dict[str, Tensor]
    inclusive: bool
    """Whether they were trained with the geometry of mmdet 1.x."""
    notes: list[str] = field(default_factory=list)
    """What the names do not show."""


def place_backbone(backbone: Backbone, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]] | None:
    """The tensors under the detector's names and what is left of them, if they are an ImageNet backbone's."""
    known = backbone.file_parts + backbone.file_classifier
    if not tensors or not all(name.split(".")[0] in known for name in tensors):
        return None
    dropped = [name for name in tensors if name.split(".")[0] in backbone.file_classifier]
    taken = {f"backbone.{name}": x for name, x in tensors.items() if name not in dropped}
    return (taken, dropped) if taken else None


def fit(head: DenseHead, tensors: dict[str, Tensor], meta: Mapping[str, Any]) -> Fitted:
    fitted = Fitted(
        {_own_name(name): x for name, x in tensors.items()}, _V1_PROJECT in tensors or bool(meta.get(INCLUSIVE))
    )
    if fitted.inclusive:
        fitted.notes.append("geometry of mmdet 1.x: points lie on pixels, boxes end on their last pixel")
    note = _fit_extra_class(head, fitted.tensors)
    if note is not None:
        fitted.notes.append(note)
    return fitted


def use_inclusive_boxes(head: DenseHead) -> None:
    priors = head.config.priors
    if isinstance(priors, Points) and not priors.inclusive:
        head.use(replace(head.config, priors=replace(priors, offset=0.5, inclusive=True)))


def _own_name(name: str) -> str:
    if name == _V1_PROJECT:
        return "bbox_head.integral.project"
    return _OLD_LAST_CONV.sub(r"bbox_head.conv_\1.\2", name)


def _fit_extra_class(head: DenseHead, tensors: dict[str, Tensor]) -> str | None:
    """GFLv2's files have a class more than there are, or not; it is never positive, and its scores are not used."""
    own = head.state_dict()
    done = None
    for part in ("weight", "bias"):
        name = f"{head.config.names.classes}.{part}"
        given = tensors.get(f"bbox_head.{name}")
        if given is None or name not in own or given.shape[1:] != own[name].shape[1:]:
            continue
        rows = {len(given), len(own[name])}
        if rows != {head.num_classes, head.num_classes + 1}:
            continue
        if len(given) > len(own[name]):
            tensors[f"bbox_head.{name}"], done = given[:-1], "left out the class beyond the model's"
        else:
            tensors[f"bbox_head.{name}"] = torch.cat([given, own[name][-1:].to(given)])
            done = "the model's class beyond the file's keeps its weights"
    return done
