"""From images of any size to one normalised batch, on the device."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gfl_ops import PaddedTargets

from ..settings import InputConfig
from .resize import resize

_LARGEST_FLOAT = 2.0  # larger values mean an image in 0..255; resampling overshoots 1 by less than that


class Batch(NamedTuple):
    pixels: Tensor
    """(B, 3, H, W) normalised, padded with 0; H and W are multiples of the divisor."""
    image_shapes: Tensor
    """(B, 2) height and width of each image, without padding."""
    padded_shapes: Tensor
    """(B, 2) the same rounded up to the divisor: the part in which anchors are trained."""
    scale_factors: Tensor
    """(B, 2) by what x and y of the original image were multiplied."""
    targets: list[dict[str, Tensor]] | PaddedTargets | None = None
    """In pixels of the batch."""


def input_size(height: int, width: int, config: InputConfig, short_side: int | None = None) -> tuple[int, int]:
    """What an image of this size is resized to; ``short_side`` takes the place of the configuration's."""
    if config.fixed_size is not None:
        return config.fixed_size
    return scaled_size(height, width, config.short_side if short_side is None else short_side, config.long_side)


def scaled_size(height: int, width: int, short_side: int, long_side: int) -> tuple[int, int]:
    """The size at which the short side is ``short_side``, or the long side ``long_side`` if that is smaller."""
    scale = min(long_side / max(height, width), short_side / min(height, width))
    return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


def make_batch(
    images: Sequence[Tensor],
    config: InputConfig,
    device: torch.device,
    training: bool,
    short_sides: Sequence[int] | None = None,
) -> Batch:
    """Resizes (bilinear, as in OpenCV), normalises and pads. Images of the same size and type are processed together.

    ``short_sides``, one for each image, replaces the short side that is configured or drawn at random.
    """
    for i, image in enumerate(images):
        _check_image(i, image)
    if short_sides is None:
        short_sides = [_short_side(config, training) for _ in images]
    elif len(short_sides) != len(images) or min(short_sides) < 1:
        raise ValueError(f"detector: short_sides must be {len(images)} numbers from 1, got {list(short_sides)}")
    sizes = [
        input_size(image.shape[1], image.shape[2], config, side)
        for image, side in zip(images, short_sides, strict=True)
    ]
    height, width = (_round_up(max(side), config.divisor) for side in zip(*sizes, strict=True))
    pixels = torch.zeros(len(images), 3, height, width, device=device)
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, image in enumerate(images):
        groups.setdefault((image.shape, image.dtype, sizes[i]), []).append(i)
    for members in groups.values():
        normalised = _normalised(
            torch.stack([images[i].to(device, non_blocking=True) for i in members]), sizes[members[0]], config
        )
        for i, image in zip(members, normalised, strict=True):
            pixels[i, :, : image.shape[1], : image.shape[2]] = image
    factors = [(new[1] / image.shape[2], new[0] / image.shape[1]) for new, image in zip(sizes, images, strict=True)]
    padded = [[_round_up(side, config.divisor) for side in size] for size in sizes]
    facts = torch.tensor([sizes, padded, factors], dtype=torch.float32).to(device, non_blocking=True)
    image_shapes, padded_shapes, scale_factors = facts.unbind()
    return Batch(pixels, image_shapes, padded_shapes, scale_factors)


def _normalised(images: Tensor, size: tuple[int, int], config: InputConfig) -> Tensor:
    """(N, C, H, W) in 0..255 or 0..1 to (N, 3, *size), by the configuration's mean and deviation."""
    images = resize(images, size).float() if images.dtype == torch.uint8 else resize(images.float() * 255, size)
    images = images.flip(1) if config.channels == "bgr" else images
    mean, std = (_statistic(values, images.device) for values in (config.mean, config.std))
    return (images - mean) / std  # a grey image becomes three channels here


@functools.cache
def _statistic(values: tuple[float, float, float], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device)[:, None, None]


def _short_side(config: InputConfig, training: bool) -> int:
    if training and config.train_short_sides is not None:
        low, high = config.train_short_sides
        return int(torch.randint(low, high + 1, ()))
    if training and config.train_short_side_choices is not None:
        choices = config.train_short_side_choices
        return choices[int(torch.randint(len(choices), ()))]
    return config.short_side


def _round_up(side: int, divisor: int) -> int:
    return (side + divisor - 1) // divisor * divisor


def _check_image(index: int, image: Tensor) -> None:
    name = f"images[{index}]"
    if not isinstance(image, Tensor):
        raise TypeError(f"detector: {name} must be a tensor, got {type(image).__name__}")
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"detector: {name} must be (3, H, W), or (1, H, W) for grey, got {tuple(image.shape)}")
    if image.numel() == 0:
        raise ValueError(f"detector: {name} must have pixels, got {tuple(image.shape)}")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise TypeError(f"detector: {name} must be uint8 or float, got {str(image.dtype).removeprefix('torch.')}")
    if image.is_floating_point() and image.device.type == "cpu":  # elsewhere the check would wait for the device
        low, high = (float(x) for x in image.aminmax())
        if low < -_LARGEST_FLOAT or high > _LARGEST_FLOAT:
            raise ValueError(
                f"detector: {name} must be RGB in [0, 1] as a float image, got values from {low:g} to {high:g}; "
                "uint8 images hold 0 to 255, and normalisation is done inside"
            )
