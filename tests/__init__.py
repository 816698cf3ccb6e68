"""The tests import the package as it is installed, and the benchmarks from this clone."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

sys.path.append(str(ROOT))
import benchmarks  # noqa: E402, F401  (takes the clone from the front of the path, where `python -m` puts it)
