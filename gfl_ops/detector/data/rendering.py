"""Paints synthetic scenes: one at a time on a CPU, each object in its own part of the image, or many together on a GPU.

Both evaluate the same formulas at the same pixel centres, so they differ by rounding alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from .shapes import ANGLES, outlines


class Objects(NamedTuple):
    """The K objects of a scene, in the order in which they are painted; or (B, K, ...) of several scenes."""

    kind: Tensor
    """(K,) row of :func:`outlines`."""
    center: Tensor
    """(K, 2) xy."""
    size: Tensor
    """(K, 2) pixels that a radius of 1 has along the object's own axes."""
    rotation: Tensor
    """(K,) angle."""
    edge: Tensor
    """(K,) pixels over which it goes from opaque to transparent."""
    blur: Tensor
    """(K,) pixels that are added to the edge on the side of blur_direction."""
    blur_direction: Tensor
    shadow: Tensor
    """(K, 3) offset of the shadow, and its darkness."""
    shade: Tensor
    """(K,) by how much it is darker on the side of its shadow."""
    texture: Tensor
    """(K, 2, 5) see _texture."""
    colors: Tensor
    """(K, 2, 3)."""


class Ground(NamedTuple):
    color: Tensor
    octaves: list[Tensor]
    light: Tensor
    """(2,) change of the brightness from one border to the other, down and right."""
    grain: Tensor
    """(64, 64) noise of a camera's sensor, repeated over the image."""


class Scene(NamedTuple):
    size: tuple[int, int]
    objects: Objects
    ground: Ground
    boxes: Tensor
    labels: Tensor


def render_scene(scene: Scene) -> Tensor:
    """(3, H, W) uint8."""
    height, width = scene.size
    canvas = _ground([scene], torch.device("cpu"))[0]
    for i in range(len(scene.objects.kind)):
        item = Objects(*(field[i] for field in scene.objects))
        x1, y1, x2, y2 = _reach(item, height, width)
        if x1 < x2 and y1 < y2:
            _paint(canvas[:, y1:y2, x1:x2], item, x1, y1)
    return _bytes(canvas[None], [scene])[0]


def render_batch(scenes: Sequence[Scene], device: torch.device) -> list[Tensor]:
    """(3, H, W) uint8 of each; scenes of one size are painted together."""
    images: list[Tensor] = [torch.empty(0)] * len(scenes)
    for size in sorted({scene.size for scene in scenes}):
        members = [i for i, scene in enumerate(scenes) if scene.size == size]
        for i, image in zip(members, _render_equal([scenes[i] for i in members], device), strict=True):
            images[i] = image
    return images


def _render_equal(scenes: list[Scene], device: torch.device) -> Tensor:
    canvas = _ground(scenes, device)
    most = max(len(scene.objects.kind) for scene in scenes)
    stacked = Objects(
        *(
            torch.stack([_padded(field, most) for field in fields]).to(device)
            for fields in zip(*(scene.objects for scene in scenes), strict=True)
        )
    )
    present = torch.tensor([[i < len(scene.objects.kind) for i in range(most)] for scene in scenes], device=device)
    for i in range(most):
        before = canvas.clone()
        _paint(canvas, Objects(*(field[:, i] for field in stacked)), 0, 0)
        canvas = torch.where(present[:, i, None, None, None], canvas, before)
    return _bytes(canvas, scenes)


def _padded(field: Tensor, count: int) -> Tensor:
    """More rows like the first; they are not painted."""
    return torch.cat([field, field[:1].expand(count - len(field), *field.shape[1:])])


def _ground(scenes: list[Scene], device: torch.device) -> Tensor:
    """(B, 3, H, W) float."""
    height, width = size = scenes[0].size
    noise = torch.stack([scene.ground.color for scene in scenes]).to(device)[:, :, None, None]
    for octaves in zip(*(scene.ground.octaves for scene in scenes), strict=True):
        finer = torch.stack(octaves).to(device)
        noise = functional.interpolate(noise, size=finer.shape[-2:], mode="bilinear") + finer
    canvas = functional.interpolate(noise, size=size, mode="bilinear")
    light = torch.stack([scene.ground.light for scene in scenes]).to(device)[:, :, None, None]
    down = torch.linspace(-1, 1, height, device=device)[:, None]
    right = torch.linspace(-1, 1, width, device=device)
    canvas *= (1 + light[:, :1] * down + light[:, 1:] * right).clamp(0.2)
    return canvas


def _bytes(canvas: Tensor, scenes: list[Scene]) -> Tensor:
    height, width = canvas.shape[-2:]
    grain = torch.stack([scene.ground.grain for scene in scenes]).to(canvas.device)
    times = (-(-height // grain.shape[1]), -(-width // grain.shape[2]))
    canvas = canvas + grain.repeat(1, *times)[:, None, :height, :width]
    return (canvas.clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def _reach(item: Objects, height: int, width: int) -> tuple[int, int, int, int]:
    """The part of the image in which an object or its shadow may be seen."""
    shadow = item.shadow.tolist()
    margin = float(item.size.max() + item.edge + item.blur) + 2
    shift = max(abs(shadow[0]), abs(shadow[1])) if shadow[2] else 0.0
    x, y = item.center.tolist()
    reach = margin + shift
    return (
        max(math.floor(x - reach), 0),
        max(math.floor(y - reach), 0),
        min(math.ceil(x + reach), width),
        min(math.ceil(y + reach), height),
    )


def _paint(canvas: Tensor, item: Objects, left: int, top: int) -> None:
    """One object, with its shadow, over the part (..., 3, h, w) of a canvas whose corner is at (left, top)."""
    height, width = canvas.shape[-2:]
    x = torch.arange(left, left + width, device=canvas.device) + 0.5 - item.center[..., 0][..., None, None]
    y = (torch.arange(top, top + height, device=canvas.device) + 0.5)[:, None] - item.center[..., 1][..., None, None]
    x, y = torch.broadcast_tensors(x, y)
    dx, dy, dark = (item.shadow[..., i][..., None, None] for i in range(3))
    if canvas.device.type != "cpu" or dark.any():  # on another device, reading it would wait
        soft = (3 * item.edge + 0.05 * item.size.amax(-1))[..., None, None]
        cast = _coverage(item, x - dx, y - dy, soft)[0]
        canvas *= (1 - dark * cast)[..., None, :, :]

    away = torch.atan2(y, x)
    edge = item.edge[..., None, None] + item.blur[..., None, None] * (
        away - item.blur_direction[..., None, None]
    ).cos().clamp(min=0)
    alpha, u, v, radius, angle = _coverage(item, x, y, edge)
    tint = 0.5 + 0.5 * _texture(item.texture, u, v, radius, angle)
    shade = 1 - item.shade[..., None, None] * (0.5 + 0.5 * (away - torch.atan2(dy, dx)).cos())
    first, second = (item.colors[..., i, :][..., None, None] for i in range(2))
    color = (second + (first - second) * tint[..., None, :, :]) * shade[..., None, :, :]
    canvas += (color - canvas) * alpha[..., None, :, :]


def _coverage(item: Objects, x: Tensor, y: Tensor, edge: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The share of each pixel that it covers, which is half on its outline; and the pixels in its own coordinates."""
    rotation = item.rotation[..., None, None]
    cos, sin = rotation.cos(), rotation.sin()
    u = (x * cos + y * sin) / item.size[..., 0][..., None, None]
    v = (y * cos - x * sin) / item.size[..., 1][..., None, None]
    radius, angle = (u * u + v * v).sqrt(), torch.atan2(v, u)
    place = item.kind[..., None, None] * ANGLES + ((angle * (ANGLES / (2 * math.pi))).round().long() & (ANGLES - 1))
    outer, inner = (table[place] for table in _tables(x.device))
    scale = item.size.amin(-1)[..., None, None]
    depth = torch.minimum(outer - radius, torch.where(inner > 0, radius - inner, 1.0)) * scale
    return (depth / edge + 0.5).clamp(0, 1), u, v, radius, angle


def _texture(phases: Tensor, u: Tensor, v: Tensor, radius: Tensor, angle: Tensor) -> Tensor:
    """The product of two waves, each a sine of its five numbers times x, y, radius, angle and 1."""
    product = torch.ones_like(u)
    for wave in range(2):
        a, b, c, d, e = (phases[..., wave, i][..., None, None] for i in range(5))
        product = product * (a * u + b * v + c * radius + d * angle + e).sin()
    return product


def _tables(device: torch.device) -> list[Tensor]:
    return [torch.from_numpy(table).flatten().to(device) for table in outlines()]
