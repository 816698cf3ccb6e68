"""The BCCD photographs of blood cells, where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import ROOT


def bccd() -> Path:
    root = Path(os.environ.get("GFL_BCCD", ROOT.parent / "shared" / "data" / "bccd"))
    if not root.is_dir():
        pytest.skip("no folder of blood cells; GFL_BCCD names it")
    return root
