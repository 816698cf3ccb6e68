"""Parsing a command line, and what becomes of errors: one line on stderr and an exit code."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .options import add_arguments

EXIT_FAILED = 1  # it ran, and it found errors or failed
EXIT_USAGE = 2  # it could not run: a wrong option, path, name or file
EXIT_INTERRUPTED = 130

# What `pip install .` leaves out and the extra `detector` has, by the names of their modules.
IMAGES = ("PIL", "tqdm")
TRAINING = (*IMAGES, "safetensors", "pycocotools", "matplotlib")


@dataclass(frozen=True)
class Command:
    name: str
    summary: str
    options: tuple[type, ...]
    """Dataclasses of :func:`.options.option`."""
    run: Callable[[argparse.Namespace], int]
    """Reads the options with :func:`.options.read`; returns the exit code."""
    needs: tuple[str, ...] = ()
    """Modules of the extra ``detector``."""


def run(commands: Sequence[Command], arguments: Sequence[str] | None = None) -> int:
    """Runs the command that the command line names, and returns its exit code."""
    parsed = _parser(commands).parse_args(arguments)
    missing = [name for name in parsed.needs if importlib.util.find_spec(name) is None]
    if missing:
        wanted = f"needs {', '.join(missing)}; install them with: pip install 'gfl_ops[detector]'"
        print(f"gfl {parsed.command}: {wanted}", file=sys.stderr)
        return EXIT_USAGE
    try:
        return int(parsed.run(parsed))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # of `gfl models | head`
        sys.stderr.close()
        return 0
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        if parsed.traceback:
            raise
        print(f"gfl {parsed.command}: {_text(error)}", file=sys.stderr)
        return EXIT_FAILED if isinstance(error, RuntimeError) else EXIT_USAGE


def _parser(commands: Sequence[Command]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gfl", description="Detectors of the Generalized Focal Loss family.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in commands:
        subparser = subparsers.add_parser(command.name, help=command.summary, description=command.summary)
        subparser.add_argument("--traceback", action="store_true", help="show where an error came from")
        subparser.set_defaults(run=command.run, needs=command.needs)
        for options in command.options:
            add_arguments(subparser, options)
    return parser


def _text(error: Exception) -> str:
    """The message, without the traceback that the data loader adds to errors of its workers."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    text = str(error).strip() or type(error).__name__
    if text.startswith("Caught ") and "DataLoader worker" in text:
        text = text.splitlines()[-1].partition(": ")[2]
    return text
