"""Options that several commands have, and their use: data, the size of images, a device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import torch

from ..config import ModelConfig
from ..data import DetectionData, SyntheticScenes, open_split
from .options import option

Split = Literal["train", "val", "test"]
SYNTHETIC_LENGTHS: dict[Split, int] = {"train": 4000, "val": 200, "test": 200}


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    section: ClassVar[str] = "data"
    data: Path | None = option("folder in COCO's format (default: synthetic scenes)", metavar="DIR")
    classes: tuple[str, ...] | None = option("use only these classes, in this order")
    skip_bad: bool = option("leave out broken images and annotations, and print how many", False)


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    section: ClassVar[str] = "size of the images"
    short_side: int | None = option("resize images so that the short side has this length", at_least=1, metavar="PX")
    long_side: int | None = option("but the long side at most this", at_least=1, metavar="PX")


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    section: ClassVar[str] = "device"
    device: str | None = option("cpu, cuda or cuda:N (default: a GPU where there is one)")
    threads: int | None = option("CPU threads of each process", at_least=1)


def open_data(options: DataOptions, split: Split, *, training: bool = False) -> DetectionData:
    """A split of the folder, or of the synthetic scenes."""
    if options.data is not None:
        return open_split(options.data, split, classes=options.classes, training=training, skip_bad=options.skip_bad)
    if options.classes is not None:
        raise ValueError("--classes needs --data: the classes of the synthetic scenes are fixed")
    return SyntheticScenes(split, SYNTHETIC_LENGTHS[split])


def with_input(config: ModelConfig, options: InputOptions) -> ModelConfig:
    """The configuration with the sizes of the options."""
    size = config.input
    if options.short_side is not None:
        longest = max(size.long_side, options.short_side)
        size = replace(size, short_side=options.short_side, long_side=longest, train_short_sides=None)
    if options.long_side is not None:
        size = replace(size, long_side=options.long_side)
    return replace(config, input=size)


def set_threads(options: DeviceOptions) -> None:
    if options.threads is not None:
        torch.set_num_threads(options.threads)
