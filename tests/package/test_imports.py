"""Who imports whom: no circles, and nothing that runs without the tests needs them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import ROOT
from tests.support import import_graph


PACKAGES = ("gfl_ops", "tests", "benchmarks")


def test_no_module_imports_itself_through_others() -> None:
    paths = {name: path for package in PACKAGES for name, path in import_graph.modules(ROOT, package).items()}
    known = {"gfl_ops.cli.main", "benchmarks.harness.rows", "benchmarks.loss_bench", "tests.support.cases"}
    assert known <= set(paths)
    assert import_graph.circles(import_graph.graph(paths)) == []


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
