"""The interface of data sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class Sample(NamedTuple):
    image: Tensor
    """(3, H, W) uint8, RGB."""
    boxes: Tensor
    """(G, 4) xyxy in pixels of the image."""
    labels: Tensor
    """(G,) int64."""
    image_id: int
    short_side: int | None = None
    """The short side after resizing in training; None leaves it to the model's configuration."""


class DetectionData(Protocol):
    """What training and evaluation need of a data set."""

    @property
    def classes(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def sizes(self) -> NDArray[np.int64]:
        """(N, 2) height and width of each image, read without its pixels."""
        ...

    def ground_truth(self) -> dict[str, Any]:
        """The annotations as a COCO json has them, for evaluation. A class' category is ``category_ids[label]``."""
        ...

    @property
    def category_ids(self) -> Sequence[int]: ...
