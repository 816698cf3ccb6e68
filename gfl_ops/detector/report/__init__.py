"""Charts and pictures of a run and its evaluation, and an HTML page that shows them."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..checkpoint import write_atomically
from ..data import DetectionData
from ..engine.logs import read_csv
from ..evaluation import Evaluation
from ..model import Detector
from . import charts
from .drawing import draw

__all__ = ["draw", "write_report"]

_GRID = 12  # images with their detections
_COLUMNS = 3
_TILE = 480  # pixels of an image's longer side
_GAP = 6

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse } td, th { padding: .2em .8em; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left } img { max-width: 100%; height: auto }
figure { display: inline-block; margin: 0 1em 1em 0; vertical-align: top } figcaption { color: #555 }
"""


def write_report(out: Path, result: Evaluation, model: Detector, data: DetectionData) -> Path:
    """Writes ``report.html``, and its pictures into the folder ``report``; for a run also the curves of its losses."""
    folder = out / "report"
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {}
    rows = read_csv(out / "train.csv")
    if rows:
        charts.loss_curves(folder / "losses.svg", rows, read_csv(out / "eval.csv"))
        pictures["losses.svg"] = "Losses by iteration"
    predictions_grid(folder / "predictions.png", model, data)
    pictures["predictions.png"] = "Detections with a score from 0.3; dashed in white: the annotated boxes"
    charts.precision_recall(folder / "precision_recall.svg", result.metrics)
    pictures["precision_recall.svg"] = "Precision and recall of each class"
    charts.score_against_overlap(folder / "score_and_quality.svg", result.quality)
    pictures["score_and_quality.svg"] = (
        "Each detection's score against its overlap with the nearest object of its class"
    )
    calibration = result.quality.calibration()
    if calibration["correlation"] is not None:
        charts.calibration(folder / "localisation.svg", calibration["bins"], calibration["correlation"])
        pictures["localisation.svg"] = "Spread of the edge distributions and actual error of the edges"
    page = _page(model.config.name, result, pictures).encode()
    path = out / "report.html"
    write_atomically(path, lambda file: file.write(page))
    return path


@torch.no_grad()
def predictions_grid(path: Path, model: Detector, data: DetectionData) -> None:
    """The first images of a data set with the model's detections."""
    edges = model.bbox_head.has_edges
    tiles = []
    for i in range(min(_GRID, len(data))):
        sample = data[i]
        (found,) = model.eval()([sample.image], with_edges=edges)
        tile = draw(sample.image, found, data.classes, model=model if edges else None, truth=sample.boxes)
        tile.thumbnail((_TILE, _TILE))
        tiles.append(tile)
    lines = [tiles[i : i + _COLUMNS] for i in range(0, len(tiles), _COLUMNS)]
    heights = [max(tile.height for tile in line) + _GAP for line in lines]
    grid = Image.new("RGB", (_COLUMNS * (_TILE + _GAP), max(sum(heights), 1)), "white")
    for row, line in enumerate(lines):
        for column, tile in enumerate(line):
            grid.paste(tile, (column * (_TILE + _GAP), sum(heights[:row])))
    grid.save(path)


def _page(name: str, result: Evaluation, pictures: Mapping[str, str]) -> str:
    summary = result.metrics.summary
    figures = _table(list(summary), [[_figure(value) for value in summary.values()]])
    keys = ("objects", "AP", "AP50", "AP75", "AR100")
    classes = _table(
        ["class", *keys],
        [[label, *(_figure(row[key]) for key in keys)] for label, row in result.metrics.per_class.items()],
    )
    texts = {file: html.escape(text) for file, text in pictures.items()}
    shown = "\n".join(
        f'<figure><img src="report/{file}" alt="{text}"><figcaption>{text}</figcaption></figure>'
        for file, text in texts.items()
    )
    title = html.escape(name)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body>\n<h1>{title}</h1>\n{figures}\n<h2>Classes</h2>\n{classes}\n"
        f"<h2>Pictures</h2>\n{shown}\n</body></html>\n"
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [f"<tr>{''.join(f'<th>{html.escape(cell)}</th>' for cell in head)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>"


def _figure(value: Any) -> str:
    if value == -1:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"
