"""The one door: what comes in is checked here, with the argument's name, what was expected and what came."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import _native

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
LABELS = (torch.int64, torch.int32, torch.int16, torch.uint8)


class Checked:
    """An op's checks, left out where the arguments are like those that passed last: asking for each thing that could be
    wrong costs as much as a small loss. See csrc/bindings.cpp for what is alike; the last argument is an avg_factor,
    or None, and as a number alike whatever its value."""

    def __init__(self, check: Callable[..., None]) -> None:
        self._check = check
        self._is_last, self._remember = _native.signature()

    def __call__(self, *args: Any) -> None:
        if torch.compiler.is_dynamo_compiling():
            self._check(*args)
        elif not self._is_last(*args):
            self._check(*args)
            self._remember(*args)


def tensor(op: str, name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a tensor, got {type(value).__name__}")
    if value.layout != torch.strided:
        raise TypeError(f"{op}: {name} must be a dense tensor, got {_short(value.layout)}")


def floating(op: str, name: str, value: Any) -> None:
    tensor(op, name, value)
    if value.dtype not in FLOATS:
        raise TypeError(f"{op}: {name} must be float32, float64, bfloat16 or float16, got {_short(value.dtype)}")


def real(op: str, name: str, value: Any) -> None:
    tensor(op, name, value)
    if value.dtype not in FLOATS + LABELS:
        raise TypeError(f"{op}: {name} must hold floats or integers, got {_short(value.dtype)}")


def shape(op: str, name: str, value: Tensor, expected: tuple[int, ...], words: str) -> None:
    if value.shape != expected:
        raise ValueError(f"{op}: {name} must be {words} = {tuple(expected)}, got {tuple(value.shape)}")


def companion(op: str, name: str, value: Any, pred: Tensor, expected: tuple[int, ...], words: str) -> None:
    """A floating tensor of this shape on pred's device that is not differentiated through."""
    floating(op, name, value)
    shape(op, name, value, expected, words)
    detached(op, name, value)
    same_device(op, name, value, pred)


def detached(op: str, name: str, value: Tensor) -> None:
    if value.requires_grad:
        raise ValueError(f"{op}: {name} must not require grad (the loss has no gradient for it); detach it first")


def same_device(op: str, name: str, value: Tensor, pred: Tensor) -> None:
    on_device_of(op, name, value, "pred", pred)


def on_device_of(op: str, name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    if value.device != other.device:
        raise ValueError(f"{op}: {name} must be on {other.device} like {other_name}, got {value.device}")


def labels(op: str, name: str, value: Any, pred: Tensor, expected: tuple[int, ...], words: str) -> None:
    tensor(op, name, value)
    if value.dtype not in LABELS:
        raise TypeError(f"{op}: {name} must be int64, int32, int16 or uint8, got {_short(value.dtype)}")
    shape(op, name, value, expected, words)
    same_device(op, name, value, pred)


def boxes(op: str, name: str, value: Any) -> None:
    floating(op, name, value)
    if value.ndim != 2 or value.shape[1] != 4:
        raise ValueError(f"{op}: {name} must be (N, 4), got {tuple(value.shape)}")


MOST_LEVELS = 8  # GFL_MAX_LEVELS in csrc/gfl.h


def sequence(op: str, name: str, value: Any, words: str) -> None:
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{op}: {name} must be a list {words}, got {type(value).__name__}")


def strides(op: str, values: Any, levels: int) -> None:
    """Pixels per cell, one number for each level."""
    sequence(op, "strides", values, "of numbers")
    if len(values) != levels:
        raise ValueError(f"{op}: strides must have one entry for each of {levels} levels, got {len(values)}")
    for stride in values:
        number(op, "strides", stride, math.ulp(0.0))


def levels(op: str, name: str, maps: Any) -> None:
    sequence(op, name, maps, "of tensors")
    if not 1 <= len(maps) <= MOST_LEVELS:
        raise ValueError(f"{op}: {name} must have 1 to {MOST_LEVELS} levels, got {len(maps)}")


def map_like(op: str, name: str, value: Any, first: Tensor, expected: tuple[int, ...], words: str) -> None:
    """One level's (B, channels, H, W), of the dtype and on the device of the first map of all."""
    floating(op, name, value)
    shape(op, name, value, expected, words)
    if value.device != first.device:
        raise ValueError(f"{op}: {name} must be on {first.device} as all levels, got {value.device}")
    if value.dtype != first.dtype:
        raise TypeError(f"{op}: {name} must be {_short(first.dtype)} as all levels, got {_short(value.dtype)}")


def number(op: str, name: str, value: Any, least: float, most: float = float("inf")) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{op}: {name} must be a number, got {type(value).__name__}")
    if not least <= value <= most or value == float("inf"):
        from_least = "above 0" if least == math.ulp(0.0) else f"at least {least:g}"
        limits = from_least if most == float("inf") else f"in [{least:g}, {most:g}]"
        raise ValueError(f"{op}: {name} must be {limits} and finite, got {value}")
    not_huge(op, name, value)


def not_huge(op: str, name: str, value: Any) -> None:
    """torch takes no int beyond 64 bits, and a float does not hold each."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(
            f"{op}: {name} must be a float or an int of at most 64 bits, got an int of {value.bit_length()} bits"
        )


def whole(op: str, name: str, value: Any, least: int) -> None:
    if not isinstance(value, (int, torch.SymInt)) or isinstance(value, bool):
        raise TypeError(f"{op}: {name} must be a whole number, got {value!r}")
    if not least <= value < 2**31:
        raise ValueError(f"{op}: {name} must be at least {least} and below 2^31, got {value}")


def flag(op: str, name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{op}: {name} must be True or False, got {type(value).__name__}")


def choice(op: str, name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{op}: {name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def reduction(op: str, name: str, avg_factor: float | Tensor | None, pred: Tensor) -> None:
    choice(op, "reduction", name, ("none", "mean", "sum"))
    if avg_factor is None:
        return
    if name == "sum":
        raise ValueError(f"{op}: avg_factor cannot be used with reduction 'sum', got {avg_factor}")
    if isinstance(avg_factor, Tensor):
        if avg_factor.numel() != 1:
            raise ValueError(f"{op}: avg_factor must be a number or one value, got shape {tuple(avg_factor.shape)}")
        if avg_factor.is_complex() or avg_factor.layout != torch.strided:
            raise TypeError(f"{op}: avg_factor must be real and dense, got {avg_factor.dtype}, {avg_factor.layout}")
        detached(op, "avg_factor", avg_factor)
        if avg_factor.device != pred.device and avg_factor.device.type != "cpu":
            same_device(op, "avg_factor", avg_factor, pred)
    elif not isinstance(avg_factor, numbers.Real):
        raise TypeError(f"{op}: avg_factor must be a number or a tensor, got {type(avg_factor).__name__}")
    else:
        not_huge(op, "avg_factor", avg_factor)


def num_bins(op: str, name: str, bins: Any) -> None:
    if not isinstance(bins, (int, torch.SymInt)) or isinstance(bins, bool):
        raise TypeError(f"{op}: {name} must be a whole number, got {bins!r}")
    if not 2 <= bins <= 256:
        raise ValueError(f"{op}: {name} must be 2 to 256, got {bins}")


def _short(kind: torch.dtype | torch.layout) -> str:
    return str(kind).removeprefix("torch.")
