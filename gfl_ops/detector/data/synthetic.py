"""A data set that needs no download: textured shapes on a cluttered background, with exact boxes.

A scene depends only on the seed, the split and its number. It is made in two steps: its contents as numbers (here) and
its pixels (:mod:`.rendering`). A shape's box is that of its whole outline, clipped to the image, also if another shape
covers it or one of its sides is blurred or in shadow. So some sides are uncertain in the image, and still known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .rendering import Ground, Objects, Scene, render_batch, render_scene
from .sample import Sample
from .shapes import CLASSES, CLUTTER, extent

SYNTHETIC_SIZE = (192, 256)
"""Height and width."""
_SPLITS = {"train": 0, "val": 1, "test": 2}
_MOST_HIDDEN = 0.4  # of the smaller of two objects
_LEAST_INSIDE = 0.6  # of an object at the image's border
_ATTEMPTS = 6  # to find a place for an object
_SMALLEST = 8.0  # pixels, of the longer side
_LARGEST = 0.85  # of the image's short side


class SyntheticScenes:
    """Scenes of 12 classes of shapes.

    Args:
        split: "train", "val" and "test" never share a scene.
        length: number of scenes.
        size: height and width; about half of the scenes swap the two.
        seed: another seed is another data set.

    Example:
        >>> sample = SyntheticScenes("val")[0]
        >>> tuple(sample.image.shape), sample.image.dtype
        ((3, 192, 256), torch.uint8)
    """

    classes: Sequence[str] = CLASSES

    def __init__(
        self,
        split: Literal["train", "val", "test"] = "train",
        length: int = 4000,
        *,
        size: tuple[int, int] = SYNTHETIC_SIZE,
        seed: int = 0,
    ) -> None:
        if split not in _SPLITS:
            raise ValueError(f"SyntheticScenes: split must be one of {', '.join(_SPLITS)}, got {split!r}")
        if min(size) < 64:
            raise ValueError(f"SyntheticScenes: size must be at least 64 x 64, got {size[0]} x {size[1]}")
        self.split, self.length, self.size, self.seed = split, length, size, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.length:
            raise IndexError(f"SyntheticScenes: index must be in [0, {self.length}), got {index}")
        scene = self.scene(index)
        return Sample(render_scene(scene), scene.boxes, scene.labels, index + 1)

    @property
    def category_ids(self) -> Sequence[int]:
        return range(1, len(self.classes) + 1)

    def scene(self, index: int) -> Scene:
        """The contents of a scene, without its pixels."""
        generator = self._generator(index)
        return _draw_scene(generator, self._size(generator))

    def batch(self, indices: Sequence[int], device: torch.device | str) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Images, boxes and labels of several scenes, painted together on a device."""
        scenes = [self.scene(index) for index in indices]
        images = render_batch(scenes, torch.device(device))
        return [(image, s.boxes.to(device), s.labels.to(device)) for image, s in zip(images, scenes, strict=True)]

    def sizes(self) -> NDArray[np.int64]:
        return np.array([self._size(self._generator(i)) for i in range(self.length)], dtype=np.int64).reshape(-1, 2)

    def ground_truth(self) -> dict[str, Any]:
        sizes = self.sizes()
        annotations: list[dict[str, Any]] = []
        for index in range(self.length):
            scene = self.scene(index)
            for (x1, y1, x2, y2), label in zip(scene.boxes.tolist(), scene.labels.tolist(), strict=True):
                row = {"id": len(annotations) + 1, "image_id": index + 1, "category_id": label + 1, "iscrowd": 0}
                annotations.append(row | {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)})
        return {
            "images": [{"id": i + 1, "height": int(h), "width": int(w)} for i, (h, w) in enumerate(sizes)],
            "categories": [{"id": i + 1, "name": name} for i, name in enumerate(self.classes)],
            "annotations": annotations,
        }

    def _generator(self, index: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, _SPLITS[self.split], index])

    def _size(self, generator: np.random.Generator) -> tuple[int, int]:
        height, width = self.size
        return (width, height) if generator.random() < 0.5 else (height, width)


def _draw_scene(generator: np.random.Generator, size: tuple[int, int]) -> Scene:
    placed: list[dict[str, Any]] = []
    for side in sorted(_draw_sides(generator, size), reverse=True):  # the large ones lie below
        for _ in range(_ATTEMPTS):
            row = _draw_object(generator, size, int(generator.integers(len(CLASSES))), side)
            if _fits(row["box"], row["whole"], [other["box"] for other in placed]):
                placed.append(row)
                break
    clutter = [
        _draw_object(generator, size, len(CLASSES) + int(generator.integers(len(CLUTTER))), side)
        for side in generator.uniform(_SMALLEST, 0.2 * min(size), int(generator.integers(2, 9)))
    ]
    objects = clutter + placed
    fields = {name: torch.from_numpy(np.stack([np.asarray(row[name]) for row in objects])) for name in Objects._fields}
    fields = {name: x if name == "kind" else x.float() for name, x in fields.items()}
    boxes = np.array([row["box"] for row in placed], dtype=np.float32).reshape(-1, 4)
    labels = np.array([row["kind"] for row in placed], dtype=np.int64)
    return Scene(size, Objects(**fields), _draw_ground(generator), torch.from_numpy(boxes), torch.from_numpy(labels))


def _draw_sides(generator: np.random.Generator, image: tuple[int, int]) -> list[float]:
    """The longer sides of some objects: one in twelve is 8 to 16 pixels, one in three 80 to 160."""
    count = int(np.clip(generator.poisson(5), 1, 12))
    low, high = math.log(_SMALLEST), math.log(_LARGEST * min(image))
    return [math.exp(low + (high - low) * x**0.6) for x in generator.random(count)]


def _draw_object(generator: np.random.Generator, image: tuple[int, int], kind: int, side: float) -> dict[str, Any]:
    height, width = image
    stretch = math.exp(generator.uniform(-0.3, 0.3))
    rotation = generator.uniform(0, 2 * math.pi)
    shape = np.array([stretch, 1 / stretch])
    low, high = extent(kind, shape, rotation)
    size = shape * side / (high - low).max()  # so that the box's longer side is what was drawn
    center = generator.uniform((0, 0), (width, height))
    low, high = extent(kind, size, rotation)
    box = np.concatenate([center + low, center + high])
    inside = np.clip(box, 0, [width, height, width, height])
    return {
        "kind": kind,
        "center": center,
        "size": size,
        "rotation": rotation,
        "edge": generator.uniform(1, 1 + 0.02 * side),
        # one side in three objects is out of focus
        "blur": generator.uniform(0.1, 0.35) * side if generator.random() < 0.33 else 0.0,
        "blur_direction": generator.uniform(0, 2 * math.pi),
        "shadow": (*generator.normal(0, 0.06 * side, 2), generator.uniform(0.2, 0.7) * (generator.random() < 0.6)),
        "shade": generator.uniform(0, 0.5),
        "texture": _draw_texture(generator, kind),
        "colors": _draw_colors(generator, kind),
        "box": inside,
        "whole": box,
    }


def _fits(box: NDArray[np.float64], whole: NDArray[np.float64], others: list[NDArray[np.float64]]) -> bool:
    """Whether enough of it is inside the image, and it does not overlap too much with another."""
    area = _area(box)
    if area < _LEAST_INSIDE * _area(whole) or min(box[2] - box[0], box[3] - box[1]) < 4:
        return False
    for other in others:
        overlap = np.concatenate([np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])])
        if (overlap[2:] > overlap[:2]).all() and _area(overlap) > _MOST_HIDDEN * min(area, _area(other)):
            return False
    return True


def _area(box: NDArray[np.float64]) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def _draw_texture(generator: np.random.Generator, kind: int) -> NDArray[np.float64]:
    """(2, 5): the phases of two waves over x, y, radius and angle, and a constant; their product is the texture.

    Four in five objects of a class have the same pattern: stripes, checks, rings or spokes.
    """
    kinds = ("stripes", "checks", "rings", "spokes")
    name = kinds[kind % 4] if generator.random() < 0.8 else kinds[int(generator.integers(4))]
    pitch, direction, start = generator.uniform(5, 14), generator.uniform(0, math.pi), generator.uniform(0, 6)
    constant = [0.0, 0.0, 0.0, 0.0, math.pi / 2]
    wave = [pitch * math.cos(direction), pitch * math.sin(direction), 0.0, 0.0, start]
    across = [-wave[1], wave[0], 0.0, 0.0, start]
    waves = {
        "stripes": (wave, constant),
        "checks": (wave, across),
        "rings": ([0.0, 0.0, pitch, 0.0, start], constant),
        "spokes": ([0.0, 0.0, 0.0, float(generator.integers(3, 8)), start], constant),
    }
    return np.array(waves[name])


def _draw_colors(generator: np.random.Generator, kind: int) -> NDArray[np.float64]:
    """(2, 3) RGB. The objects of a class have similar hues; clutter has any."""
    class_hue = kind / len(CLASSES) if kind < len(CLASSES) else generator.random()
    hue = class_hue + generator.normal(0, 0.03)
    colors = []
    for shift in (0.0, generator.normal(0, 0.08)):
        value, saturation = generator.uniform(0.4, 1), generator.uniform(0.45, 1)
        wheel = np.clip(np.abs(((hue + shift + np.array([0, 2 / 3, 1 / 3])) * 6) % 6 - 3) - 1, 0, 1)
        colors.append(value * (1 - saturation * (1 - wheel)))
    return np.array(colors)


def _draw_ground(generator: np.random.Generator) -> Ground:
    """Coarse to fine noise, each octave weaker, around a colour."""
    color = generator.uniform(0.15, 0.85, 3)
    octaves = [
        torch.from_numpy(generator.normal(0, strength, (channels, cells, cells)).astype(np.float32))
        for channels, cells, strength in ((3, 3, 0.15), (3, 9, 0.09), (1, 32, 0.07))
    ]
    light = generator.uniform(-0.25, 0.25, 2)
    return Ground(
        torch.from_numpy(color).float(),
        octaves,
        torch.from_numpy(light).float(),
        torch.from_numpy(generator.normal(0, 0.03, (64, 64)).astype(np.float32)),
    )
