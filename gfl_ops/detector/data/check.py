"""Checks a data set for errors before training."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .coco import CocoDetection, Finding, Record
from .images import BadImage, image_size, read_image


@dataclass
class CheckReport:
    """The contents of a data set, and its errors."""

    path: Path
    images: int
    boxes: int
    boxes_per_class: dict[str, int]
    images_without_boxes: int
    side: dict[str, float]
    """Square root of the boxes' areas in pixels: least, quartiles, largest."""
    findings: list[Finding] = field(default_factory=list)
    bad_images: list[Path] = field(default_factory=list)

    @property
    def fatal(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.fatal]

    def kinds(self) -> dict[str, int]:
        return dict(Counter(finding.kind for finding in self.findings))

    def as_json(self) -> dict[str, Any]:
        return {
            "annotations": str(self.path),
            "images": self.images,
            "boxes": self.boxes,
            "boxes_per_class": self.boxes_per_class,
            "images_without_boxes": self.images_without_boxes,
            "side": self.side,
            "errors": [str(finding) for finding in self.fatal],
            "warnings": [str(finding) for finding in self.findings if not finding.fatal],
            "kinds": self.kinds(),
        }


def check(
    data: CocoDetection, *, read_images: bool = True, progress: Callable[[Iterable[Any]], Iterable[Any]] = iter
) -> CheckReport:
    """Looks for errors in the annotations and in the image files.

    Args:
        data: opened with ``skip_bad=True``, which collects all errors in place of raising the first.
        read_images: decode every file, not only its header: the header of a truncated file is intact.
        progress: wraps the iterable of images, for a progress bar.
    """
    report = _summary(data)
    find = functools.partial(_image_finding, decode=read_images)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for record, finding in zip(data.records, progress(pool.map(find, data.records)), strict=True):
            if finding is not None:
                report.findings.append(finding)
                report.bad_images.append(record.path)
    return report


def _summary(data: CocoDetection) -> CheckReport:
    labels = np.concatenate([record.labels for record in data.records])
    boxes = np.concatenate([record.boxes for record in data.records])
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1)) if len(boxes) else np.zeros(1)
    names = ("min", "25%", "median", "75%", "max")
    quantiles = dict(zip(names, np.quantile(sides, [0, 0.25, 0.5, 0.75, 1]), strict=True))
    counts = np.bincount(labels, minlength=len(data.classes))
    return CheckReport(
        data.path,
        len(data.records),
        len(boxes),
        {name: int(count) for name, count in zip(data.classes, counts, strict=True)},
        sum(len(record.boxes) == 0 for record in data.records),
        {name: round(float(value), 1) for name, value in quantiles.items()},
        list(data.findings),
    )


def _image_finding(record: Record, decode: bool) -> Finding | None:
    try:
        height, width = read_image(record.path).shape[1:] if decode else image_size(record.path)
    except BadImage as error:
        return Finding(str(record.path), str(error).removeprefix(f"{record.path}: "), "image file", True)
    if (height, width) != (record.height, record.width):
        what = f"is {width} x {height}, the annotations say {record.width} x {record.height}"
        return Finding(str(record.path), what, "image size", True)
    return None
