"""The commands of ``gfl``."""

from __future__ import annotations

from collections.abc import Sequence

from ..detector import train
from ..detector.command.running import run
from . import about, bench, evaluate, predict

COMMANDS = (
    train.COMMAND,
    evaluate.COMMAND,
    predict.COMMAND,
    bench.COMMAND,
    about.CHECK_DATA,
    about.MODELS,
    about.INFO,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line, and returns its exit code."""
    return run(COMMANDS, arguments)
