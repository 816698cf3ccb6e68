"""The outlines of the synthetic scenes' objects: the radius in each direction, from an outer and an inner curve."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

ANGLES = 2048  # a power of 2; at the largest shape's border they lie a third of a pixel apart
Curve = NDArray[np.float64]
_theta = np.arange(ANGLES) * (2 * math.pi / ANGLES)
_cosine, _sine = np.cos(_theta), np.sin(_theta)


def _constant(radius: float) -> Curve:
    return np.full(ANGLES, radius)


def _polygon(corners: list[tuple[float, float]]) -> Curve:
    """Of a polygon around the origin, from which all corners are visible."""
    points = np.array(corners)
    points = points / np.hypot(*points.T).max()
    start, end = points, np.roll(points, -1, axis=0)
    direction = np.stack([np.cos(_theta), np.sin(_theta)])[:, :, None]
    edge = (end - start).T[:, None]
    # direction * t = start + edge * s, solved for each direction and edge
    cross = direction[0] * edge[1] - direction[1] * edge[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (start[:, 0] * edge[1] - start[:, 1] * edge[0]) / cross
        s = (start[:, 0] * direction[1] - start[:, 1] * direction[0]) / cross
    hit = (t > 0) & (s >= -1e-9) & (s <= 1 + 1e-9)
    return np.where(hit, t, 0).max(1)


def _regular(corners: int, inner: float | None = None) -> list[tuple[float, float]]:
    """A regular polygon; with ``inner`` a star whose other corners have that radius."""
    radii = [1.0] * corners if inner is None else [1.0, inner] * corners
    angles = [2 * math.pi * i / len(radii) for i in range(len(radii))]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for radius, angle in zip(radii, angles, strict=True)]


def _cross(width: float) -> list[tuple[float, float]]:
    quarter = [(1.0, width), (width, width), (width, 1.0)]
    return [
        (x * math.cos(rotation) - y * math.sin(rotation), x * math.sin(rotation) + y * math.cos(rotation))
        for rotation in (math.pi / 2 * i for i in range(4))
        for x, y in ((1.0, -width), *quarter[:2])
    ]


def _arrow() -> list[tuple[float, float]]:
    half = [(1.0, 0.0), (-0.05, 0.9), (-0.08, 0.32), (-1.0, 0.32)]
    return half + [(x, -y) for x, y in reversed(half[1:])]


def _heart() -> Curve:
    t = np.linspace(0, 2 * math.pi, 200, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return _polygon(list(zip(x.tolist(), (y + 2).tolist(), strict=True)))


def _horseshoe() -> Curve:
    return np.where(np.abs(_theta - math.pi) < 0.6, 0.0, 1.0)


def _half_disc() -> Curve:
    arc = [(0.95 * math.cos(a), 0.95 * math.sin(a) - 0.4) for a in np.linspace(0, math.pi, 60)]
    return _polygon(arc)


def _gear() -> Curve:
    return 0.86 + 0.14 * np.tanh(4 * np.sin(9 * _theta))


# Name: (outer curve, inner curve), in the order of the labels.
_OUTLINES: dict[str, Callable[[], tuple[Curve, Curve]]] = {
    "disc": lambda: (_constant(1), _constant(0)),
    "ring": lambda: (_constant(1), _constant(0.55)),
    "square": lambda: (_polygon(_regular(4)), _constant(0)),
    "triangle": lambda: (_polygon(_regular(3)), _constant(0)),
    "star": lambda: (_polygon(_regular(5, 0.42)), _constant(0)),
    "cross": lambda: (_polygon(_cross(0.3)), _constant(0)),
    "gear": lambda: (_gear(), _constant(0.3)),
    "heart": lambda: (_heart(), _constant(0)),
    "arrow": lambda: (_polygon(_arrow()), _constant(0)),
    "half_disc": lambda: (_half_disc(), _constant(0)),
    "horseshoe": lambda: (_horseshoe(), _constant(0.5)),
    "flower": lambda: (0.72 + 0.28 * np.cos(4 * _theta), _constant(0)),
}
CLASSES = tuple(_OUTLINES)
# Unlabelled objects between the others, all of them long and thin.
CLUTTER = ("splinter", "needle", "bar")


@functools.cache
def outlines() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(S, ANGLES) outer and inner radii, of the classes and then of the clutter."""
    pairs = [make() for make in _OUTLINES.values()]
    needle = _polygon([(1.0, 0.0), (-0.8, 0.13), (-1.0, 0.0), (-0.8, -0.13)])
    splinter = _polygon([(1.0, 0.1), (-0.4, 0.35), (-0.7, -0.1), (0.1, -0.3)])
    bar = _polygon([(1.0, 0.12), (-1.0, 0.12), (-1.0, -0.12), (1.0, -0.12)])
    pairs += [(curve, _constant(0)) for curve in (splinter, needle, bar)]
    outer, inner = (np.stack(curves).astype(np.float32) for curves in zip(*pairs, strict=True))
    return outer, inner


def extent(kind: int, size: NDArray[np.float64], rotation: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The least and largest x and y of an outline about its centre, in pixels."""
    radius = outlines()[0][kind]
    x, y = radius * _cosine * size[0], radius * _sine * size[1]
    cos, sin = math.cos(rotation), math.sin(rotation)
    points = np.stack([x * cos - y * sin, x * sin + y * cos])
    return points.min(1), points.max(1)
