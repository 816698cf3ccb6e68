"""The log of a run: a progress bar, CSV files, and TensorBoard if it is installed."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import torch

from ..checkpoint import write_atomically


class RunLog:
    """``train.csv`` and ``eval.csv`` of a run's folder, ``tensorboard/``, and a bar on the terminal.

    A resumed run first removes what was logged after its checkpoint, so that every iteration is in the files once.
    """

    def __init__(
        self, folder: Path, total: int, start: int, *, quiet: bool = False, stream: TextIO = sys.stderr
    ) -> None:
        self.folder, self.total = folder, total
        self.steps = self.images = 0
        self.since = time.perf_counter()
        for name in ("train.csv", "eval.csv"):
            _remove_after(folder / name, start)
        self.stream = None if quiet else stream
        from tqdm import tqdm

        self.bar = tqdm(
            total=total,
            initial=start,
            unit="it",
            disable=quiet or not stream.isatty(),  # a file gets lines in its place
            file=stream,
            dynamic_ncols=True,
            smoothing=0.1,
        )
        self.board = _tensorboard(folder / "tensorboard", start)

    def step(self, images: int) -> None:
        self.steps += 1
        self.images += images
        self.bar.update()

    def train(self, iteration: int, values: Mapping[str, float]) -> None:
        """Logs averages since the last call, with the images per second and the memory in use."""
        now = time.perf_counter()
        rate = self.images / (now - self.since)
        self.images, self.since = 0, now
        row = {**values, "images_per_s": rate, "memory_mb": _memory_mb()}
        self._write("train.csv", iteration, row)
        shown = {name.removeprefix("loss_"): f"{x:.3f}" for name, x in values.items() if name.startswith("loss")}
        shown |= {"lr": f"{values['lr']:.1e}", "img/s": f"{rate:.1f}", "MB": f"{row['memory_mb']:.0f}"}
        self.bar.set_postfix(shown)
        if self.bar.disable:
            self.say(f"{iteration}/{self.total}: " + ", ".join(f"{name} {value}" for name, value in shown.items()))

    def evaluation(self, iteration: int, metrics: Mapping[str, float]) -> None:
        self._write("eval.csv", iteration, metrics)
        self.say(f"iteration {iteration}: " + ", ".join(f"{k} {metrics[k]:.3f}" for k in ("AP", "AP50", "AP75")))
        self.since, self.images = time.perf_counter(), 0

    def say(self, text: str) -> None:
        if self.stream is not None:
            self.bar.clear()
            print(text, file=self.stream, flush=True)
            self.bar.refresh()

    def close(self) -> None:
        self.bar.close()
        if self.board is not None:
            self.board.close()

    def _write(self, name: str, iteration: int, row: Mapping[str, float]) -> None:
        path = self.folder / name
        fresh = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(["iteration", *row])
            writer.writerow([iteration, *(f"{value:.6g}" for value in row.values())])
        if self.board is not None:
            for key, value in row.items():
                self.board.add_scalar(f"{name.removesuffix('.csv')}/{key}", value, iteration)


def read_csv(path: Path) -> list[dict[str, float]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _remove_after(path: Path, iteration: int) -> None:
    if not path.exists():
        return
    with path.open(newline="") as file:
        head, *rows = list(csv.reader(file)) or [[]]
    kept = [row for row in rows if len(row) == len(head) and int(row[0]) <= iteration]  # an incomplete line goes too
    text = io.StringIO(newline="")
    csv.writer(text).writerows([head, *kept])
    if kept:
        write_atomically(path, lambda file: file.write(text.getvalue().encode()))
    else:
        path.unlink()


def _tensorboard(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=start + 1)


def _memory_mb() -> float:
    """The peak of the GPU's allocator, or else of this process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
