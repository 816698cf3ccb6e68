"""Options described as a dataclass's fields: what a command line makes of them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from gfl_ops.detector.command.options import add_arguments, check_minimums, option, positional, read
from gfl_ops.detector.engine import TrainOptions


@dataclass(frozen=True, kw_only=True)
class Base:
    section: ClassVar[str] = "shared"
    names: tuple[str, ...] | None = option("some names")
    shuffle: bool = option("keep the order", True)


@dataclass(frozen=True, kw_only=True)
class Example(Base):
    section: ClassVar[str] = "own"
    files: list[str] = positional("what to read", metavar="FILE")
    kind: Literal["a", "b"] = option("which kind", "b")
    least_size: int = option("whole number", 3, at_least=2, also="--ls")
    rate: float | None = option("number", one_of="speed")
    steps: int | None = option("whole number", one_of="speed")
    folder: Path | None = option("where to", metavar="DIR")
    loud: bool = option("say more", False)
    given: str = "not an option"


def parser_of(options: type) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="example")
    add_arguments(parser, options)
    return parser


def parse(*arguments: str) -> Example:
    return read(Example, parser_of(Example).parse_args(arguments), given="by the caller")


def test_options_that_are_not_given_have_the_defaults() -> None:
    assert parse("x", "y") == Example(files=["x", "y"], given="by the caller")


def test_texts_become_what_the_types_say() -> None:
    text = "x --names=a,b --no-shuffle --kind=a --least-size=2 --rate=1e-3 --folder=d/e --loud"
    parsed = parse(*text.split())
    expected = Example(
        files=["x"],
        names=("a", "b"),
        shuffle=False,
        kind="a",
        least_size=2,
        rate=1e-3,
        folder=Path("d/e"),
        loud=True,
        given="by the caller",
    )
    assert parsed == expected
    assert parse("x", "--ls", "4").least_size == 4 and parse("x", "--names", "").names is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "the following arguments are required: FILE"),
        ("x --kind=c", "argument --kind: invalid choice: 'c'"),
        ("x --least-size=1", "argument --least-size/--ls: must be a whole number from 2, got '1'"),
        ("x --steps=-1", "argument --steps: must be a whole number from 0, got '-1'"),
        ("x --steps=1.5", "argument --steps: must be a whole number from 0, got '1.5'"),
        ("x --rate=fast", "argument --rate: invalid float value: 'fast'"),
        ("x --rate=1 --steps=1", "argument --steps: not allowed with argument --rate"),
        ("x --shuffle", "unrecognized arguments: --shuffle"),
        ("x --given=y", "unrecognized arguments: --given=y"),
    ],
)
def test_wrong_texts_are_refused(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(*arguments.split())
    assert caught.value.code == 2 and message in capsys.readouterr().err


def test_help_has_defaults_and_sections() -> None:
    lines = [" ".join(line.split()) for line in parser_of(Example).format_help().splitlines()]
    assert "--kind {a,b} which kind (default: b)" in lines
    assert "--least-size N, --ls N" in lines and "whole number (default: 3)" in lines
    assert "--folder DIR where to" in lines and "--no-shuffle keep the order" in lines and "--loud say more" in lines
    assert (
        lines.index("own:")
        < lines.index("--loud say more")
        < lines.index("shared:")
        < lines.index("--no-shuffle keep the order")
    )


def test_minimums_hold_without_a_command_line() -> None:
    check_minimums("where", Example(files=[], steps=None, least_size=2))
    with pytest.raises(ValueError, match=r"^where: least_size must be at least 2, got 1$"):
        check_minimums("where", Example(files=[], least_size=1))


def test_a_training_has_the_same_defaults_in_python_and_on_the_command_line() -> None:
    parser = parser_of(TrainOptions)
    assert read(TrainOptions, parser.parse_args([]), out=Path("run")) == TrainOptions(Path("run"))
    options = parser.format_help()
    for name in (each.name.replace("_", "-") for each in fields(TrainOptions) if each.name != "out"):
        assert f" --{name}" in options or f" --no-{name}" in options
    assert " --out" not in options


def test_the_short_names_of_training_options_set_the_same_fields() -> None:
    parser = parser_of(TrainOptions)
    long = "--learning-rate 0.1 --sync-batchnorm --evaluate-every 7"
    short = "--lr 0.1 --sync-bn --eval-every 7"
    for arguments in (long, short):
        options = read(TrainOptions, parser.parse_args(arguments.split()), out=Path())
        assert options == TrainOptions(Path(), learning_rate=0.1, sync_batchnorm=True, evaluate_every=7)
