"""Data sets in COCO's format: a json file beside a folder of images."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .images import read_image
from .sample import Sample


class BadData(ValueError):
    """Annotations that cannot be used. The message names the file and the error."""


@dataclass(frozen=True)
class Record:
    """An image's entry in the json, and its boxes to train on."""

    image_id: int
    path: Path
    height: int
    width: int
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Finding:
    """An error, or something unusual, in an image or an annotation."""

    where: str
    what: str
    kind: str
    """A short name of the problem, for counting."""
    fatal: bool
    """Whether training refuses to start because of it. Other boxes are dropped or kept, as in mmdet."""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class CocoDetection:
    """Images and boxes of one annotation file.

    What mmdet leaves out is left out here too. Boxes are not trained on if they are crowds, marked ``ignore``, without
    area, less than a pixel wide or high, or outside the image. In training, images are left out if they have no other
    box, or a side under 32 pixels. The evaluation gets the annotations as they are, crowds included. Boxes that extend
    beyond the image stay as they are; the model clips them.

    Args:
        annotations: the json file.
        images: the folder that its ``file_name`` entries are relative to.
        classes: names to take, in the order of the labels; None takes all, in the order of their ids. Category ids may
            be any numbers.
        training: leave out images without boxes and images that are too small.
        skip_bad: leave out malformed annotations, in place of raising. ``findings`` lists them in any case.
        smallest: in training, images with a shorter side are left out.
    """

    def __init__(
        self,
        annotations: str | Path,
        images: str | Path,
        *,
        classes: Sequence[str] | None = None,
        training: bool = False,
        skip_bad: bool = False,
        smallest: int = 32,
    ) -> None:
        self.path, self.folder = Path(annotations), Path(images)
        self._json = read_json(self.path)
        self.classes, self._category_ids = _choose(self._json["categories"], classes, self.path)
        self.findings: list[Finding] = []
        per_image = self._annotations_by_image()
        self.records = [self._record(image, per_image.get(image["id"], [])) for image in self._images()]
        fatal = [finding for finding in self.findings if finding.fatal]
        if fatal and not skip_bad:
            more = f" (and {len(fatal) - 1} more)" if len(fatal) > 1 else ""
            raise BadData(f"{fatal[0]}{more}")
        self.left_out = 0
        if training:
            kept = [r for r in self.records if len(r.boxes) and min(r.height, r.width) >= smallest]
            self.left_out = len(self.records) - len(kept)
            self.records = kept

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        record = self.records[index]
        return Sample(
            read_image(record.path), torch.from_numpy(record.boxes), torch.from_numpy(record.labels), record.image_id
        )

    @property
    def category_ids(self) -> Sequence[int]:
        return self._category_ids

    def sizes(self) -> NDArray[np.int64]:
        return np.array([(r.height, r.width) for r in self.records], dtype=np.int64).reshape(-1, 2)

    def drop(self, paths: Iterable[Path]) -> int:
        """Removes these images, and returns how many there were."""
        gone = set(paths)
        kept = [record for record in self.records if record.path not in gone]
        count, self.records = len(self.records) - len(kept), kept
        return count

    def ground_truth(self) -> dict[str, Any]:
        """Of the images and classes in use. Annotations that the evaluator cannot read are left out."""
        images = {record.image_id for record in self.records}
        wanted = set(self._category_ids)
        annotations = [
            {**a, "id": i, "area": _area(a), "iscrowd": int(a.get("iscrowd") or 0)}
            for i, a in enumerate(self._json["annotations"], 1)
            if a.get("image_id") in images and a.get("category_id") in wanted and _box(a) is not None
        ]
        return {
            "images": [{"id": r.image_id, "height": r.height, "width": r.width} for r in self.records],
            "categories": [{"id": i, "name": n} for i, n in zip(self._category_ids, self.classes, strict=True)],
            "annotations": annotations,
        }

    def _images(self) -> list[dict[str, Any]]:
        kept: dict[int, dict[str, Any]] = {}
        for i, image in enumerate(self._json["images"]):
            where = f"{self.path}: images[{i}]"
            if not isinstance(image, dict) or not {"id", "file_name", "height", "width"} <= image.keys():
                self._find(where, "has not all of id, file_name, height and width", "image entry")
            elif not all(_whole(image[key]) and image[key] > 0 for key in ("height", "width")):
                size = f"{image['width']!r} x {image['height']!r}"
                self._find(f"{self.path}: {image['file_name']}", f"width x height is {size}", "image entry")
            elif image["id"] in kept:
                self._find(where, f"id {image['id']} is taken by {kept[image['id']]['file_name']}", "image entry")
            else:
                kept[image["id"]] = image
        return list(kept.values())

    def _annotations_by_image(self) -> dict[int, list[dict[str, Any]]]:
        images = {image["id"] for image in self._json["images"] if isinstance(image, dict) and "id" in image}
        categories = {category["id"] for category in self._json["categories"]}
        groups: dict[int, list[dict[str, Any]]] = {}
        for i, annotation in enumerate(self._json["annotations"]):
            where = f"{self.path}: annotations[{i}]"
            if not isinstance(annotation, dict):
                self._find(where, f"is a {type(annotation).__name__}", "annotation entry")
            elif annotation.get("image_id") not in images:
                self._find(where, f"is of image {annotation.get('image_id')!r}, which is not listed", "unknown image")
            elif annotation.get("category_id") not in categories:
                category = annotation.get("category_id")
                self._find(where, f"is of category {category!r}, which is not listed", "unknown category")
            else:
                groups.setdefault(annotation["image_id"], []).append(annotation)
        return groups

    def _record(self, image: dict[str, Any], annotations: list[dict[str, Any]]) -> Record:
        label_of = {category: label for label, category in enumerate(self._category_ids)}
        where = f"{self.path}: {image['file_name']}"
        boxes: list[tuple[float, float, float, float]] = []
        labels: list[int] = []
        for annotation in annotations:
            box, ident = _box(annotation), f"annotation {annotation.get('id')}"
            if box is None:
                self._find(where, f"{ident}: bbox must be four finite numbers, got {annotation.get('bbox')!r}", "bbox")
                continue
            fault = _degenerate(box, _area(annotation), image["height"], image["width"])
            if fault is not None:
                self._find(where, f"{ident}: {fault}, bbox {annotation['bbox']}", "box without use", fatal=False)
                continue
            if _sticks_out(box, image["height"], image["width"]):
                text = f"{ident}: sticks out of the image of {image['width']} x {image['height']}, bbox"
                self._find(where, f"{text} {annotation['bbox']}", "box beyond the image", fatal=False)
            if annotation.get("iscrowd") or annotation.get("ignore") or annotation["category_id"] not in label_of:
                continue
            label = label_of[annotation["category_id"]]
            if any(label == other and _same(box, known) for known, other in zip(boxes, labels, strict=True)):
                text = f"{ident}: nearly the same box of the same class again, bbox {annotation['bbox']}"
                self._find(where, text, "double", fatal=False)
            boxes.append(box)
            labels.append(label)
        return Record(
            image["id"],
            self.folder / image["file_name"],
            image["height"],
            image["width"],
            np.array(boxes, dtype=np.float32).reshape(-1, 4),
            np.array(labels, dtype=np.int64),
        )

    def _find(self, where: str, what: str, kind: str, fatal: bool = True) -> None:
        self.findings.append(Finding(where, what, kind, fatal))


def read_json(path: Path) -> dict[str, Any]:
    """An annotation file with its three lists, or an error that names it."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BadData(f"{path}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise BadData(f"{path}: cannot be read as JSON: {error}") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise BadData(f"{path}: is not in COCO's format: there is no list {key!r}")
    for i, category in enumerate(content["categories"]):
        if not isinstance(category, dict) or not {"id", "name"} <= category.keys():
            raise BadData(f"{path}: categories[{i}] has not both id and name")
    if not content["images"]:
        raise BadData(f"{path}: lists no images")
    return content


def _choose(
    categories: list[dict[str, Any]], names: Sequence[str] | None, path: Path
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The classes' names and category ids, in the order of the labels."""
    by_name = {str(category["name"]): category["id"] for category in categories}
    if len(by_name) < len(categories) or len(set(by_name.values())) < len(categories):
        raise BadData(f"{path}: two categories have the same name or id")
    if names is None:
        names = sorted(by_name, key=lambda name: by_name[name])
    for name in names:
        if name not in by_name:
            raise BadData(f"{path}: has no category {name!r}; it has {', '.join(by_name)}")
    if len(set(names)) < len(names):
        raise BadData(f"{path}: classes must differ, got {', '.join(names)}")
    return tuple(names), tuple(by_name[name] for name in names)


def _box(annotation: dict[str, Any]) -> tuple[float, float, float, float] | None:
    """xyxy, or None where the json has no four finite numbers."""
    bbox = annotation.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4:
        return None
    if not all(isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x) for x in bbox):
        return None
    x, y, width, height = bbox
    return (x, y, x + width, y + height)


def _area(annotation: dict[str, Any]) -> float:
    area = annotation.get("area")
    if isinstance(area, (int, float)) and not isinstance(area, bool):
        return float(area)
    _, _, width, height = annotation["bbox"]
    return float(max(width, 0) * max(height, 0))


def _degenerate(box: tuple[float, float, float, float], area: float, height: int, width: int) -> str | None:
    """Why mmdet would drop the box; None if it would not."""
    x1, y1, x2, y2 = box
    if x2 - x1 < 1 or y2 - y1 < 1:
        return "less than a pixel wide or high"
    if area <= 0:
        return f"area is {area:g}"
    if min(x2, width) <= max(x1, 0) or min(y2, height) <= max(y1, 0):
        return f"outside the image of {width} x {height}"
    return None


def _sticks_out(box: tuple[float, float, float, float], height: int, width: int) -> bool:
    """By more than a pixel; less is within the precision of annotations."""
    return box[0] < -1 or box[1] < -1 or box[2] > width + 1 or box[3] > height + 1


def _same(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    """An overlap of 90 %: one object annotated twice."""
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared >= 0.9 * union


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
