"""The rows of the paper's tables: what FCOS and ATSS become with other qualities and other kinds of boxes.

A row is named after the model that it changes: ``atss_r50_fpn+iou-branch``. They are models like all others, but no
weights of them were published.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ..config import ModelConfig
from ..heads import (
    Centerness,
    CenternessGuided,
    ClassOnly,
    Distribution,
    Divisors,
    Gaussian,
    IoUBranch,
    IoUGuided,
    Joint,
)
from . import atss, fcos, lite

_BETAS = (0.0, 1.0, 2.0, 2.5, 4.0)
_REG_MAXES = (12, 14, 16, 18)
_UNITS = (0.5, 1.0, 2.0, 4.0)


def qualities(least_weight: float) -> dict[str, Any]:
    """Table 1a. ``least_weight`` is of a positive where its IoU weighs it."""
    return {
        "no-quality": ClassOnly(),
        "centerness-branch": Centerness(),
        "iou-branch": IoUBranch(least_weight=least_weight),
        "centerness-guided": CenternessGuided(),
        "iou-guided": IoUGuided(least_weight=least_weight),
        "joint": Joint(),
    }


def kinds_of_box(iou_weight: float, means: Any) -> dict[str, Any]:
    """Table 2a, beside what the model has: centerness and focal loss stay. ``means`` is the Gaussian's activation."""
    return {
        "gaussian": Gaussian(means),
        "general": Distribution(weight=iou_weight, dfl_weight=None),
        "general-dfl": Distribution(weight=iou_weight),
    }


def _of_fcos(base: ModelConfig) -> Iterator[ModelConfig]:
    # Its boxes start without area, and IoUs of 0 would leave the box loss without a positive.
    for name, quality in qualities(least_weight=0.1).items():
        least = 1e-6 if "centerness" in name else 1.0
        yield _row(base, name, quality=quality, divisors=Divisors("batch", least_weight=least))
    for name, boxes in kinds_of_box(1.0, "relu").items():
        yield _row(base, name, boxes=boxes)


def _of_atss(base: ModelConfig) -> Iterator[ModelConfig]:
    for name, quality in qualities(least_weight=0.0).items():
        yield _row(base, name, quality=quality)
    for name, boxes in kinds_of_box(2.0, "linear").items():
        yield _row(base, name, boxes=boxes)
    for beta in _BETAS:
        yield _row(base, f"joint-beta{beta:g}", quality=Joint(beta))
    for reg_max in _REG_MAXES:
        yield _row(base, f"gfl-n{reg_max}", quality=Joint(), boxes=Distribution(reg_max))
    for unit in _UNITS:
        yield _row(base, f"gfl-delta{unit:g}", quality=Joint(), boxes=Distribution(unit=unit))


def _row(base: ModelConfig, name: str, **parts: Any) -> ModelConfig:
    return replace(base, name=f"{base.name}+{name}", head=replace(base.head, **parts), published=None)


_FCOS = fcos.ALIASES["fcos_r50_fpn"]
_BASES = {config.name: config for family in (fcos, atss, lite) for config in family.MODELS}

MODELS = (
    *(row for name in (_FCOS, "fcos_r18_fpn_lite") for row in _of_fcos(_BASES[name])),
    *(row for name in ("atss_r50_fpn", "atss_r18_fpn_lite") for row in _of_atss(_BASES[name])),
)
ALIASES: dict[str, str] = {
    f"fcos_r50_fpn{row.name.removeprefix(_FCOS)}": row.name for row in MODELS if row.name.startswith(_FCOS)
}
