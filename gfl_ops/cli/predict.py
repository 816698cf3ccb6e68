"""``gfl predict``."""

from __future__ import annotations

import argparse
import glob
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..detector import Detector
from ..detector.command.options import option, positional, read
from ..detector.command.printing import print_json, progress
from ..detector.command.running import IMAGES, Command
from ..detector.command.shared import DeviceOptions, set_threads
from ..detector.data import read_image
from .weights import ModelOptions, load_model

_IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
_VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"}


@dataclass(frozen=True, kw_only=True)
class PredictOptions(ModelOptions, DeviceOptions):
    section: ClassVar[str] = "prediction"
    images: list[str] = positional("files, folders, globs, or videos (with OpenCV)", metavar="IMAGE")
    weights: Path | None = option("weights (default: the best of the newest run)", metavar="FILE")
    out: Path | None = option("write the images with their boxes to this folder", metavar="DIR")
    json: bool = option("print the detections as JSON, one line for each image", False)
    score_thr: float = option("leave out detections with a lower score", 0.3)
    edges: bool = option("draw no edge distributions", True)
    every: int = option("take every Nth frame of a video", 1, at_least=1)


def _predict(arguments: argparse.Namespace) -> int:
    options = read(PredictOptions, arguments)
    if options.out is None and not options.json:
        raise ValueError("--out DIR or --json says what to do with the detections")
    if not 0 <= options.score_thr <= 1:
        raise ValueError(f"--score-thr must be from 0 to 1, got {options.score_thr:g}")
    set_threads(options)
    sources = list(_sources(options.images))  # before the model, so that a wrong path is reported at once
    model, classes = load_model(options.weights, options)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device must be cpu where torch finds no GPU, got {device}")
    model = model.to(device).eval()
    model.config = replace(model.config, postprocess=replace(model.config.postprocess, score_thr=options.score_thr))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    bar = progress("images", quiet=options.json, unit="img")
    taken: set[Path] = set()
    for name, image in bar(_frames(sources, options.every)):
        _predict_image(name, image, model, classes, options, taken)
    if not options.json:
        print(f"{options.out}")
    return 0


def _predict_image(
    name: str, image: Tensor, model: Detector, classes: list[str], options: PredictOptions, taken: set[Path]
) -> None:
    edges = model.bbox_head.has_edges
    (found,) = model([image], with_edges=edges)
    found = {key: value.cpu() for key, value in found.items()}
    if options.out is not None:
        from ..detector.report import draw

        shown = model if edges and options.edges else None
        draw(image, found, classes, model=shown, score_thr=options.score_thr).save(
            _unused_path(options.out, name, taken)
        )
    if options.json:
        print_json({"image": name, "detections": _rows(found, image, model, classes, edges)})


def _rows(
    found: dict[str, Tensor], image: Tensor, model: Detector, classes: list[str], edges: bool
) -> list[dict[str, Any]]:
    from ..detector.evaluation.detections import pixels_per_bin

    spread = (found["edge_std"] * pixels_per_bin(found, image, model)).tolist() if edges else None
    rows = []
    for i, (box, score, label) in enumerate(
        zip(found["boxes"].tolist(), found["scores"].tolist(), found["labels"].tolist(), strict=True)
    ):
        row = {"box": [round(x, 2) for x in box], "score": round(score, 4), "label": label, "class": classes[label]}
        if spread is not None:
            row["edge_spread"] = [round(x, 2) for x in spread[i]]
        rows.append(row)
    return rows


def _sources(arguments: list[str]) -> Iterator[Path]:
    """The files that the arguments name: files, images of folders, and matches of patterns."""
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if file.suffix.lower() in _IMAGES)
            if not found:
                raise FileNotFoundError(f"{path}: there is no image in this folder")
            yield from found
        elif path.is_file():
            yield path
        else:
            matches = sorted(Path(match) for match in glob.glob(argument, recursive=True))
            if not matches:
                raise FileNotFoundError(f"{argument}: there is no such file, and nothing fits it as a pattern")
            yield from (match for match in matches if match.is_file())


def _frames(sources: list[Path], every: int) -> Iterator[tuple[str, Tensor]]:
    for path in sources:
        if path.suffix.lower() in _VIDEOS:
            yield from _video_frames(path, every)
        else:
            yield str(path), read_image(path)


def _video_frames(path: Path, every: int) -> Iterator[tuple[str, Tensor]]:
    try:
        import cv2
    except ImportError as error:
        raise ImportError(f"{path}: videos are read by OpenCV: pip install opencv-python-headless") from error
    video = cv2.VideoCapture(str(path))
    if not video.isOpened():
        raise ValueError(f"{path}: cannot be read as a video")
    try:
        number = 0
        while True:
            success, frame = video.read()
            if not success:
                return
            if number % every == 0:
                image = torch.from_numpy(frame[:, :, ::-1].copy()).permute(2, 0, 1).contiguous()
                yield f"{path}#{number:06d}", image
            number += 1
    finally:
        video.release()


def _unused_path(folder: Path, name: str, taken: set[Path]) -> Path:
    """A path that is not taken yet: images of different folders may have the same name."""
    file, _, frame = name.partition("#")
    stem = f"{Path(file).stem}_{frame}" if frame else Path(file).stem
    path, number = folder / f"{stem}.png", 2
    while path in taken:
        path, number = folder / f"{stem}_{number}.png", number + 1
    taken.add(path)
    return path


COMMAND = Command(
    "predict",
    "detect objects in images, and draw them or print them as JSON",
    (PredictOptions,),
    _predict,
    IMAGES,
)
