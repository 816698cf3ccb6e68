"""Draws detections into their images, with the edge distributions along the sides of the boxes."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..evaluation.detections import pixels_per_bin
from ..model import Detector

_SMALL = 480  # pixels of the shorter side up to which an image is enlarged, so that what is drawn can be read
_PLOT = 0.16  # height of a distribution's plot, of the box's shorter side


def draw(
    image: Tensor,
    found: dict[str, Tensor],
    classes: Sequence[str],
    *,
    model: Detector | None = None,
    score_thr: float = 0.3,
    truth: Tensor | None = None,
) -> Image.Image:
    """The image with its boxes, classes and scores.

    Args:
        image: (3, H, W) uint8 or float in [0, 1].
        found: a detection of :class:`Detector`. If it has edge distributions (``with_edges=True``) and the model is
            given, each distribution is plotted across its side of the box.
        classes: names by label.
        score_thr: detections with a lower score are not drawn.
        truth: (G, 4) annotated boxes, drawn in dashed white.
    """
    pixels = image if not image.is_floating_point() else (image.clamp(0, 1) * 255).byte()
    pixels = pixels.expand(3, -1, -1)
    picture = Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).cpu().numpy()))
    zoom = max(1, round(_SMALL / max(min(picture.size), 1)))
    picture = picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(picture, "RGBA")
    for box in truth.tolist() if truth is not None else []:
        _dashed(pen, [x * zoom for x in box])
    units = pixels_per_bin(found, image, model).cpu().numpy() if model is not None and "edges" in found else None
    for i in reversed(range(len(found["scores"]))):  # the highest scores on top
        score = float(found["scores"][i])
        if score < score_thr:
            continue
        label = int(found["labels"][i])
        color, box = class_color(label, len(classes)), [x * zoom for x in found["boxes"][i].tolist()]
        pen.rectangle(box, outline=color, width=2)
        if units is not None:
            edges = found["edges"][i].float().cpu().numpy()
            for side in range(4):
                _plot_edge(pen, box, side, edges[side], float(units[i, side]) * zoom, color)
        _caption(pen, box, f"{classes[label]} {score:.2f}", color)
    return picture


def class_color(label: int, count: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(label / max(count, 1), 0.85, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def _plot_edge(
    pen: ImageDraw.ImageDraw,
    box: list[float],
    side: int,
    probabilities: NDArray[Any],
    unit: float,
    color: tuple[int, int, int],
) -> None:
    """A filled curve whose base line crosses the middle of the side, bins at the places that they stand for.

    The distribution's mean is the edge that was decoded, so bin i lies (i - mean) bins further out than the edge.
    """
    x1, y1, x2, y2 = box
    bins = np.arange(len(probabilities))
    outward = (bins - (probabilities * bins).sum()) * unit
    height = max(_PLOT * min(x2 - x1, y2 - y1), 6.0) * probabilities / max(float(probabilities.max()), 1e-6)
    shown = probabilities > 0.01
    keep = slice(max(int(shown.argmax()) - 1, 0), len(shown) - int(shown[::-1].argmax()) + 1)
    outward, height = outward[keep], height[keep]
    middle_x, middle_y = (x1 + x2) / 2, (y1 + y2) / 2
    if side in (0, 2):
        along = x1 - outward if side == 0 else x2 + outward
        curve = list(zip(along.tolist(), (middle_y - height).tolist(), strict=True))
        ends = [(float(along[-1]), middle_y), (float(along[0]), middle_y)]
    else:
        along = y1 - outward if side == 1 else y2 + outward
        curve = list(zip((middle_x + height).tolist(), along.tolist(), strict=True))
        ends = [(middle_x, float(along[-1])), (middle_x, float(along[0]))]
    if len(curve) >= 2:
        pen.polygon([*curve, *ends], fill=(*color, 110))
        pen.line(curve, fill=(255, 255, 255, 220), width=1)


def _caption(pen: ImageDraw.ImageDraw, box: list[float], text: str, color: tuple[int, int, int]) -> None:
    font = ImageFont.load_default(12)
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    x, y = box[0], max(box[1] - (bottom - top) - 6, 0)
    pen.rectangle([x, y, x + right - left + 6, y + bottom - top + 6], fill=(*color, 230))
    pen.text((x + 3 - left, y + 3 - top), text, fill=(0, 0, 0, 255), font=font)


def _dashed(pen: ImageDraw.ImageDraw, box: list[float], length: int = 6) -> None:
    x1, y1, x2, y2 = box
    for start in np.arange(x1, x2, 2 * length).tolist():
        for y in (y1, y2):
            pen.line([start, y, min(start + length, x2), y], fill=(255, 255, 255, 230), width=1)
    for start in np.arange(y1, y2, 2 * length).tolist():
        for x in (x1, x2):
            pen.line([x, start, x, min(start + length, y2)], fill=(255, 255, 255, 230), width=1)
