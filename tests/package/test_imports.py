"""Who imports whom: no circles, and nothing that runs without the tests needs them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import ROOT
from tests.support import import_graph


def test_no_module_of_tests_and_benchmarks_imports_itself_through_others() -> None:
    paths = import_graph.modules(ROOT, "tests") | import_graph.modules(ROOT, "benchmarks")
    assert {"benchmarks.harness.rows", "benchmarks.loss_bench", "tests.support.cases", "tests.conftest"} <= set(paths)
    assert import_graph.circles(import_graph.graph(paths)) == []


def test_no_module_of_the_package_imports_itself_through_others() -> None:
    paths = import_graph.modules(ROOT, "gfl_ops")
    assert {"gfl_ops", "gfl_ops.cli.main", "gfl_ops.detector.train", "gfl_ops.ops.nms"} <= set(paths)
    assert import_graph.circles(import_graph.graph(paths)) == []


@pytest.mark.parametrize(
    ("lower", "upper"),
    [("gfl_ops.ops", "gfl_ops.detector"), ("gfl_ops.ops", "gfl_ops.cli"), ("gfl_ops.detector", "gfl_ops.cli")],
)
def test_the_lower_rooms_of_the_package_do_not_import_the_upper_ones(lower: str, upper: str) -> None:
    imports = import_graph.graph(import_graph.modules(ROOT, "gfl_ops"))
    needed = {module for name in imports if f"{name}.".startswith(f"{lower}.") for module in imports[name]}
    assert needed and {module for module in needed if f"{module}.".startswith(f"{upper}.")} == set()


def _room(path: Path, csrc: Path) -> str:
    """math, cpu or cuda; or a file of its own."""
    return path.relative_to(csrc).parts[0]


def test_includes_of_the_core_go_down_to_the_formulas() -> None:
    """csrc/math knows itself and the ABI's constants, the CPU's and the GPU's files do not know each other, and none
    knows torch."""
    csrc = ROOT / "csrc"
    seen = set()
    for path in (path for path in csrc.rglob("*") if path.is_file()):
        room, text = _room(path, csrc), path.read_text()
        assert not re.search(r"#include\s*[<\"](torch|ATen|c10)/", text), path
        for name in re.findall(r'#include "(.*?)"', text):
            beside = (path.parent / name).resolve()
            other = _room(beside, csrc) if beside.exists() else name.split("/")[0]
            assert room != "math" or other in ("math", "gfl.h"), f"{path} includes {name}"
            assert {room, other} != {"cpu", "cuda"}, f"{path} includes {name}"
            seen.add((room, other))
    assert {("math", "math"), ("cpu", "math"), ("cuda", "math"), ("cpu", "gfl.h"), ("core.cpp", "cpu")} <= seen


def test_benchmarks_run_without_the_tests() -> None:
    paths = import_graph.modules(ROOT, "tests") | import_graph.modules(ROOT, "benchmarks")
    imports = import_graph.graph(paths)
    needed = {module for name in imports if name.startswith("benchmarks") for module in imports[name]}
    assert {module for module in needed if module.startswith("tests")} == set()


def test_what_several_files_of_tests_share_stands_in_support() -> None:
    paths = import_graph.modules(ROOT, "tests")
    imports = import_graph.graph(paths)
    shared = {module for name in imports for module in imports[name]}
    assert {module for module in shared if module.rpartition(".")[2].startswith("test_")} == set()


def test_a_circle_is_found(tmp_path: Path) -> None:
    files = {
        "p/__init__.py": "from p import a",
        "p/a.py": "from .q import b",
        "p/q/__init__.py": "",
        "p/q/b.py": "def later():\n    import p.q.c",
        "p/q/c.py": "from .. import a\nimport p.d",
        "p/d.py": "if TYPE_CHECKING:\n    from p import e\nelse:\n    from p import a",
        "p/e.py": "from p.d import something",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    imports = import_graph.graph(import_graph.modules(tmp_path, "p"))
    assert imports == {
        "p": {"p.a"},
        "p.a": {"p.q.b"},
        "p.q": set(),
        "p.q.b": {"p.q.c"},
        "p.q.c": {"p.a", "p.d"},
        "p.d": {"p.a"},
        "p.e": {"p.d"},
    }
    assert import_graph.circles(imports) == [["p.a", "p.q.b", "p.q.c", "p.a"]]
    assert import_graph.circles({**imports, "p.q.b": set()}) == []
