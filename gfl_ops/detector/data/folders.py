"""Finds the annotations and the images of a split in the usual folder layouts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .coco import BadData, CocoDetection, read_json

_ANNOTATIONS = (
    "{split}.json",
    "annotations/{split}.json",
    "annotations/instances_{split}.json",
    "annotations/instances_{split}2017.json",
    "{split}/_annotations.coco.json",
    "{split}/annotations.json",
)
_IMAGES = ("{split}", "{split}2017", "images/{split}", "images/{split}2017", "images", "{split}/images", ".")
_ALSO_CALLED = {"val": ("val", "valid", "test")}


def find_split(root: str | Path, split: str) -> tuple[Path, Path]:
    """The annotation file and the folder of images of ``"train"`` or ``"val"`` below ``root``."""
    root = Path(root)
    if not root.is_dir():
        raise BadData(f"{root}: there is no such folder")
    names = _ALSO_CALLED.get(split, (split,))
    candidates = [root / pattern.format(split=name) for name in names for pattern in _ANNOTATIONS]
    found = [path for path in candidates if path.is_file()]
    if not found:
        tried = ", ".join(pattern.format(split=split) for pattern in _ANNOTATIONS)
        raise BadData(f"{root}: no annotations of the split {split!r}; looked for {tried}")
    annotations = found[0]
    first = read_json(annotations)["images"]
    files = [image["file_name"] for image in first if isinstance(image, dict) and "file_name" in image]
    folders = [annotations.parent, *(root / pattern.format(split=name) for name in names for pattern in _IMAGES)]
    for file in files[:10]:  # some may be missing, which `gfl check-data` reports
        for folder in folders[1:] + folders[:1]:
            if (folder / file).is_file():
                return annotations, folder
    raise BadData(f"{annotations}: its image {files[0] if files else '(none)'} lies in no folder below {root}")


def open_split(
    root: str | Path,
    split: str,
    *,
    classes: Sequence[str] | None = None,
    training: bool = False,
    skip_bad: bool = False,
) -> CocoDetection:
    """A split of a folder: see :class:`CocoDetection` for the options."""
    annotations, images = find_split(root, split)
    return CocoDetection(annotations, images, classes=classes, training=training, skip_bad=skip_bad)
