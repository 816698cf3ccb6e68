"""Options, each described once: as a field of a dataclass, from which its argument on the command line follows.

    batch_size: int = option("images at a time", 8, at_least=1)

is ``--batch-size N``, with the default in its help. The type says how the text is read; each may be ``| None``, for an
option that is not given:

- ``bool``: a flag. It is ``--no-NAME`` where the default is True.
- ``Literal``: one of its values.
- ``int``: a whole number.
- ``tuple[str, ...]``: names with commas between them.
- ``list[str]``: one or more arguments.
- ``float``, ``str``, ``Path``: what these make of the text.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")
_METAVARS = {int: "N", float: "X", tuple: "A,B"}


@dataclass(frozen=True)
class Description:
    """What a field's name, type and default do not say."""

    help: str
    metavar: str | None = None
    at_least: int | None = None
    """Of a whole number; None is 0 on the command line."""
    also: str | None = None
    """Another name on the command line."""
    one_of: str | None = None
    """Of the options with the same text here only one may be given."""
    positional: bool = False


def option(help: str, default: Any = None, **description: Any) -> Any:
    """A field of a dataclass that is ``--NAME`` on the command line; the rest is for :class:`Description`."""
    return field(default=default, metadata={"option": Description(help, **description)})


def positional(help: str, default: Any = MISSING, **description: Any) -> Any:
    """A field that has a place on the command line and no name. It must be given where it has no default."""
    return field(default=default, metadata={"option": Description(help, positional=True, **description)})


def add_arguments(parser: argparse.ArgumentParser, options: Any) -> None:
    """Adds an argument for each option of a dataclass.

    The class and each of its bases is a section of ``--help``, under the title in its ``section``.
    """
    types = get_type_hints(options)
    groups: list[Any] = [group for group in options.__mro__ if is_dataclass(group)]
    for group in groups:
        inherited = {each.name for base in group.__bases__ if is_dataclass(base) for each in fields(base)}
        section = parser.add_argument_group(group.section)
        exclusive: dict[str | None, Any] = {}
        for name, (default, about) in _described(group).items():
            if name in inherited:
                continue
            if about.one_of is not None and about.one_of not in exclusive:
                exclusive[about.one_of] = section.add_mutually_exclusive_group()
            settings = _settings(_without_none(types[name]), default, about)
            if about.positional:
                parser.add_argument(name, **settings)
            else:
                spellings = [f"--{'no-' if default is True else ''}{name.replace('_', '-')}", about.also]
                place = exclusive.get(about.one_of, section)
                place.add_argument(*filter(None, spellings), dest=name, **settings)


def read(options: type[T], arguments: argparse.Namespace, **others: Any) -> T:
    """An instance with the options of the command line. ``others`` are the fields that are not options."""
    return options(**{name: getattr(arguments, name) for name in _described(options)}, **others)


def check_minimums(where: str, options: Any) -> None:
    """What the parser checks, for options that do not come from a command line."""
    for name, (_, about) in _described(options).items():
        value = getattr(options, name)
        if about.at_least is not None and value is not None and value < about.at_least:
            raise ValueError(f"{where}: {name} must be at least {about.at_least}, got {value}")


def _described(options: Any) -> dict[str, tuple[Any, Description]]:
    """The default and the description of each field that is an option."""
    return {each.name: (each.default, each.metadata["option"]) for each in fields(options) if each.metadata}


def _without_none(kind: Any) -> Any:
    """``int`` for ``int | None``."""
    parts = get_args(kind)
    return parts[0] if parts[1:] == (type(None),) else kind


def _settings(kind: Any, default: Any, about: Description) -> dict[str, Any]:
    """What argparse is told of an option beside its name."""
    settings: dict[str, Any] = {"help": about.help}
    if default is not MISSING:
        settings["default"] = default
        if about.positional:
            settings["nargs"] = "?"
    if kind is bool:
        return settings | {"action": "store_false" if default is True else "store_true"}
    if default is not None and default is not MISSING:
        settings["help"] += " (default: %(default)s)"
    general = get_origin(kind) or kind
    settings["metavar"] = about.metavar or _METAVARS.get(general)
    if general is Literal:
        return settings | {"choices": get_args(kind)}
    if general is list:
        return settings | {"nargs": "+"}
    return settings | {"type": {int: _whole_number(about.at_least or 0), tuple: _split}.get(general, kind)}


def _whole_number(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least}, got {text!r}")
        return int(text)

    return parse


def _split(text: str) -> tuple[str, ...] | None:
    return tuple(text.split(",")) if text else None
