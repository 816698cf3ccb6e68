"""What README, CONTRIBUTING and docs show is what happens, and what they name is there."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType, ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import gfl_ops
from gfl_ops import _dispatch
from tests import ROOT
from tests.support import line_counts

PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for pattern in ("*.md", "docs/*.md", "tests/README.md")
    for path in sorted(ROOT.glob(pattern))
    if path.name != "CHANGELOG.md"
}
README = PAGES["README.md"]


def blocks(page: str, language: str) -> list[str]:
    found = re.findall(
        r"^```(\w*)\n(.*?)^```$", PAGES[page], re.MULTILINE | re.DOTALL
    )  # all, so that each ends its own
    return [text for name, text in found if name == language]


def commands() -> list[tuple[str, str]]:
    """The lines of all shell blocks without their comments."""
    lines = [(page, line) for page in PAGES for block in blocks(page, "sh") for line in block.splitlines()]
    return [(page, line.partition(" #")[0].strip()) for page, line in lines]


# ---- Python ----------------------------------------------------------------------------------------------


def call_as_in_mmdet(block: str) -> None:
    names = {
        "pred": torch.randn(8, 80),
        "label": torch.randint(81, (8,)),
        "score": torch.rand(8),
        "weight": torch.rand(8),
        "avg_factor": 3.0,
    }
    exec(block, names)
    assert names["loss"].ndim == 0  # type: ignore[union-attr]


def register_in_mmdet(block: str) -> None:
    """And the config beside it names what was registered, with arguments that the constructors take."""
    registered: dict[str, Any] = {}

    def register_module(name: str, module: type) -> None:
        registered[name] = module

    registry = ModuleType("mmdet.registry")
    registry.MODELS = SimpleNamespace(register_module=register_module)  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "mmdet", ModuleType("mmdet"))
        patch.setitem(sys.modules, "mmdet.registry", registry)
        exec(block, {})
    (config,) = blocks("README.md", "diff")
    losses = re.findall(r"^\+ +loss_\w+=dict\((.*?)\)", config, re.MULTILINE)
    for arguments in losses:
        options = eval(f"dict({arguments})")
        registered.pop(options.pop("type"))(**options)
    assert len(losses) == 3 and not registered


def replace_written_out_loss(block: str) -> None:
    before, after = block.split("# after")
    names = {
        "cross_entropy": torch.nn.functional.cross_entropy,
        "gfl_ops": gfl_ops,
        "logits": torch.randn(32, 17),
        "target": torch.rand(32) * 15.9,
        "weight": torch.rand(32),
        "avg_factor": 20.0,
    }
    expected, got = dict(names), dict(names)
    exec(before, expected)
    exec(after, got)
    torch.testing.assert_close(got["loss"], expected["loss"])


def run_alone(block: str) -> None:
    exec(compile(block, "README.md", "exec"), {})


def postprocess(block: str) -> None:
    sizes = [(80, 104), (40, 52), (20, 26), (10, 13), (5, 7)]
    names = {
        "gfl_ops": gfl_ops,
        "cls_scores": [torch.randn(2, 80, *size) - 4 for size in sizes],
        "bbox_preds": [torch.randn(2, 68, *size) for size in sizes],
        "image_shapes": [(640, 832), (600, 800)],
        "scale_factors": [1.5, (1.25, 1.2)],
    }
    exec(block, names)
    shown = re.findall(r"^(found.*?)  # (\(B.*)$", block, re.MULTILINE)
    assert len(shown) == 3
    for expressions, comment in shown:
        values = eval(expressions, names)
        values = (values,) if isinstance(values, Tensor) else values
        shapes = [eval(shape, {"B": 2}) for shape in re.findall(r"\(B,[^)]*\)", comment)]
        assert [tuple(value.shape) for value in values] == shapes


def choose_backend(block: str) -> None:
    exec(block.replace("    ...", "    before = gfl_ops._dispatch.forced()"), names := {"gfl_ops": gfl_ops})
    assert names["before"] == "reference"


def detect(block: str) -> None:
    """With the smallest model in place of the one that is named, on small images."""
    build = gfl_ops.detector.build
    small = gfl_ops.detector.InputConfig(short_side=64, long_side=96)
    lite = replace(gfl_ops.detector.get_config("gfl_r18_fpn_lite"), input=small)

    def build_small(name: str, num_classes: int = 80) -> gfl_ops.detector.Detector:
        assert name in gfl_ops.detector.list_models()
        return build(lite, num_classes)

    torch.save(build_small("gfl_r50_fpn").state_dict(), "gfl_r50_fpn_1x_coco.pth")
    target = {"boxes": torch.tensor([[10.0, 2.0, 60.0, 30.0]]), "labels": torch.tensor([3])}
    images = [torch.rand(3, 64, 80), torch.rand(3, 48, 72)]
    names: dict[str, Any] = {"gfl_ops": gfl_ops, "images": images, "targets": [target, target]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gfl_ops.detector, "build", build_small)
        exec(block, names)
    assert set(names["losses"]) == {"loss_cls", "loss_bbox", "loss_dfl"}
    edges = {"edges", "edge_std", "edge_stride"} if "with_edges" in block else set()
    assert [set(found) for found in names["detections"]] == [{"boxes", "scores", "labels"} | edges] * 2


def exchange_parts(block: str) -> None:
    """The head at its end is GFL's, and so takes its fast path."""
    exec(block, names := dict[str, Any]())
    assert names["model"].bbox_head.criterion is not None and names["model"].num_classes == 3


SNIPPETS: dict[str, Callable[[str], None]] = {  # by words that one of the blocks has
    "from mmdet.models": call_as_in_mmdet,
    "register_module": register_in_mmdet,
    "# before": replace_written_out_loss,
    "import torch": run_alone,
    "gfl_ops.postprocess(": postprocess,
    "gfl_ops.use_backend(": choose_backend,
    "gfl_ops.detector.build(": detect,
    "heads.Joint()": exchange_parts,
}
PYTHON = [(page, number) for page in PAGES for number in range(len(blocks(page, "python")))]


@pytest.mark.parametrize(("page", "number"), PYTHON)
def test_python_does_what_is_shown(page: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = blocks(page, "python")[number]
    (check,) = (check for words, check in SNIPPETS.items() if words in block)
    monkeypatch.chdir(tmp_path)
    check(block)


def raised(*, label: Tensor | None = None, score: Tensor | None = None, twice: bool = False) -> str:
    logits = torch.zeros(8400, 80, requires_grad=True)
    label = torch.zeros(8400, dtype=torch.int64) if label is None else label
    score = torch.zeros(8400) if score is None else score
    with pytest.raises((RuntimeError, TypeError, ValueError)) as error, gfl_ops.use_backend("native"):
        loss = gfl_ops.quality_focal_loss(logits, (label, score))
        if twice:
            (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
            gradient.sum().backward()
    return f"{error.type.__name__}: {error.value}"


@pytest.mark.usefixtures("needs_native")
def test_errors_look_as_shown() -> None:
    (shown,) = (block.splitlines() for block in blocks("README.md", "") if "Error: " in block)
    assert shown == [
        raised(score=torch.zeros(8400, 1)),
        raised(label=torch.zeros(8400)),
        raised(score=torch.zeros(8400, requires_grad=True)),
        raised(twice=True),
    ]


def test_every_public_name_is_in_the_table() -> None:
    rest = {"DistributionBoxLosses", "__version__", "detector", "nn", "use_backend"}
    missing = [name for name in gfl_ops.__all__ if name not in rest and f"`{name}`" not in README]
    assert missing == []


# ---- commands and options --------------------------------------------------------------------------------


class _Parsed(Exception):
    """The command line was understood, and is not run."""


GFL = [line for _, line in commands() if line.startswith("gfl ") or "gfl_ops.detector.train" in line]


@pytest.mark.parametrize("line", GFL)
def test_gfl_takes_the_options_shown(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm")
    from gfl_ops.cli import main

    parse = argparse.ArgumentParser.parse_args

    def parse_only(*arguments: Any) -> None:
        parse(*arguments)
        raise _Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    words = shlex.split(line)
    starts = {"torchrun": "gfl_ops.detector.train", "gfl": "gfl"}
    arguments = words[words.index(starts[words[0]]) + 1 :]
    with pytest.raises(_Parsed):
        main(arguments if words[0] == "gfl" else ["train", *arguments])


def test_there_are_commands_of_gfl() -> None:
    assert len(GFL) > 5


def test_scripts_have_the_options_shown() -> None:
    lines = [line for _, line in commands() if re.search(r"python (-m )?benchmarks\b", line)]
    assert len(lines) > 5
    for line in lines:
        words = shlex.split(line[line.index("benchmarks") :])
        script = ROOT / (words[0] if words[0].endswith(".py") else words[0].replace(".", "/") + ".py")
        options = [word for word in words if word.startswith("--")]
        assert [option for option in options if f'"{option}"' not in script.read_text()] == [], line


def test_build_options_are_those_of_the_build() -> None:
    page, project = PAGES["docs/building.md"], (ROOT / "pyproject.toml").read_text()
    build = project + (ROOT / "setup.py").read_text()
    assert set(re.findall(r"`(GFL_\w+)`", page)) == set(re.findall(r"\bGFL_\w+", build))
    (default,) = re.findall(r'"GFL_CUDA_ARCHS", default = "(.*?)"', project)
    assert f"default `{default}`" in page


def test_extras_are_those_of_the_package() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    extras = {
        name for text in PAGES.values() for found in re.findall(r"'\.\[(.*?)\]'", text) for name in found.split(",")
    }
    assert extras and [name for name in extras if f"\n{name} = [" not in project] == []


def test_the_report_shown_lists_the_ops() -> None:
    (shown,) = (block for block in blocks("docs/building.md", "") if "native core" in block)
    rows = shown.partition("\nop ")[2].partition("  [1]")[0].splitlines()[1:]
    assert [row.split()[0] for row in rows] == list(_dispatch.OPS)


# ---- what the pages point to -----------------------------------------------------------------------------


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    for path, _, heading in (link.partition("#") for link in re.findall(r"\]\(([^)\s]+)\)", text)):
        if "://" in path:
            continue
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), path
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert heading in map(anchor, headings), f"{path}#{heading}"


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    """`<op>` and the like stand for any name."""
    found = re.findall(r"`((?:\.ci|benchmarks|cmake|csrc|docs|gfl_ops|tests)/[^`\s]*)`", PAGES[page])
    missing = [path for path in found if not list(ROOT.glob(re.sub(r"<\w+>", "*", path).rstrip("/")))]
    assert missing == []


@pytest.mark.usefixtures("needs_native")
def test_a_call_enters_the_files_of_python_that_are_listed() -> None:
    pred, label, score = torch.randn(8, 80, requires_grad=True), torch.randint(81, (8,)), torch.rand(8)
    package = Path(gfl_ops.__file__).parent
    entered: dict[str, None] = {}  # in order

    def note(frame: FrameType, event: str, _: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(package):
            entered[f"gfl_ops/{path.relative_to(package)}"] = None

    for last in (False, False, True):  # the first calls are checked, and remembered
        sys.setprofile(note if last else None)
        gfl_ops.quality_focal_loss(pred, (label, score), avg_factor=4.0).backward()
        sys.setprofile(None)
    _, _, listed = PAGES["docs/architecture.md"].partition("enters these files of Python")
    assert list(entered) == re.findall(r"`(.*?)`", listed.partition("\n\n")[0])
    assert len(entered) <= 6


@pytest.mark.usefixtures("needs_native")
def test_a_call_enters_the_files_of_cpp_that_are_listed(tmp_path: Path) -> None:
    entered = line_counts.files_entered(tmp_path)
    _, _, listed = PAGES["docs/architecture.md"].partition("And of C++")
    assert entered == sorted(re.findall(r"`(csrc/.*?)`", listed.split("\n\n")[1]))
    assert len(entered) <= 10


def test_the_path_of_a_new_op_names_every_file_that_names_an_op() -> None:
    op = "generalized_focal_loss"
    path = PAGES["CONTRIBUTING.md"].partition("## The path of a new op")[2].partition("\n## ")[0]
    shown = [name.replace("<op>", op) for name in re.findall(r"`([\w<>./]+\.\w+|[\w/]+/)`", path)]
    rooms = [ROOT / name for name in ("benchmarks", "csrc", "docs", "gfl_ops", "tests")]
    files = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(path for room in rooms for path in room.rglob("*.*"))]
    sources = [file for file in files if file.suffix in (".py", ".h", ".cpp", ".cu", ".cuh", ".md")]
    naming = [str(file.relative_to(ROOT)) for file in sources if op in file.read_text() and file != Path(__file__)]
    folders = tuple(name for name in shown if name.endswith("/"))
    assert len(naming) > 30
    assert [name for name in naming if name not in shown and not name.startswith(folders)] == []
