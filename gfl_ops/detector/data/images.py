"""Image files to tensors. Pillow is imported when it is used: without it, other rooms can still be imported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_ORIENTATION = 0x0112  # the EXIF tag
_TRANSPOSED = (5, 6, 7, 8)  # the orientations that swap width and height


class BadImage(ValueError):
    """An image file that cannot be used. The message names the file and the error."""


def read_image(path: Path) -> Tensor:
    """(3, H, W) uint8, RGB, rotated by its EXIF orientation, as OpenCV does."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            pixels = np.array(ImageOps.exif_transpose(file).convert("RGB"))
    except FileNotFoundError:
        raise BadImage(f"{path}: there is no such file") from None
    # Pillow's decoders raise errors of many types, SyntaxError and struct.error among them.
    except Exception as error:
        raise BadImage(f"{path}: {_reason(error, path)}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) of what :func:`read_image` gives, from the file's header alone."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            width, height = file.size
            # a PNG's own getexif() decodes the pixels
            transposed = Image.Image.getexif(file).get(_ORIENTATION) in _TRANSPOSED
    except FileNotFoundError:
        raise BadImage(f"{path}: there is no such file") from None
    except Exception as error:
        raise BadImage(f"{path}: {_reason(error, path)}") from error
    return (width, height) if transposed else (height, width)


def _reason(error: Exception, path: Path) -> str:
    if path.is_dir():
        return "is a folder"
    if path.is_file() and path.stat().st_size == 0:
        return "is empty"
    text = str(error).replace(str(path), "file")
    return f"cannot be decoded: {text or type(error).__name__}"
