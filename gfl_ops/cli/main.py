"""Parsing, and what becomes of errors: one line on stderr and an exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

EXIT_FAILED = 1  # it ran, and what it found or did is a failure
EXIT_USAGE = 2  # it could not run: a wrong option, path, name or file
EXIT_INTERRUPTED = 130


class Failed(Exception):
    """A failure that has its say in one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line, and returns its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # of `gfl models | head`
        sys.stderr.close()
        return 0
    except (ValueError, TypeError, OSError, ImportError, RuntimeError, Failed) as error:
        if options.traceback:
            raise
        print(f"gfl {options.command}: {_text(error)}", file=sys.stderr)
        return EXIT_FAILED if isinstance(error, (Failed, RuntimeError)) else EXIT_USAGE


def _text(error: Exception) -> str:
    """The message; of one that a worker process raised, not its traceback."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    text = str(error).strip() or type(error).__name__
    if text.startswith("Caught ") and "DataLoader worker" in text:
        text = text.splitlines()[-1].partition(": ")[2]
    return text


def _parser() -> argparse.ArgumentParser:
    from . import about, bench, evaluate, predict, train

    parser = argparse.ArgumentParser(prog="gfl", description="Detectors of the Generalized Focal Loss family.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        train.add,
        evaluate.add,
        predict.add,
        bench.add,
        about.add_check_data,
        about.add_models,
        about.add_info,
    ):
        command = add(commands)
        command.add_argument("--traceback", action="store_true", help="show where an error came from")
    return parser
