"""Which module imports which, read from the sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

Graph = dict[str, set[str]]


def modules(root: Path, package: str) -> dict[str, Path]:
    """The package's modules by their dotted names."""
    found = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def graph(paths: Mapping[str, Path]) -> Graph:
    """Imports inside functions count, those under `if TYPE_CHECKING:` do not. A package counts where something is
    imported from its `__init__`, and not where Python merely runs that on the way to one of its modules."""
    found: Graph = {}
    for name, path in paths.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        asked_for = _imported(ast.parse(path.read_text()), package)
        found[name] = {wanted if wanted in paths else wanted.rpartition(".")[0] for wanted in asked_for}
        found[name] = {module for module in found[name] if module in paths and module != name}
    return found


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Dotted names, each of a module or of something in a module."""
    for node in _nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            levels = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*levels, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    children = ast.iter_child_nodes(tree)
    if isinstance(tree, ast.If) and ast.unparse(tree.test) in (
        "TYPE_CHECKING",
        "_TYPE_CHECKING",
        "typing.TYPE_CHECKING",
    ):
        children = iter(tree.orelse)
    for node in children:
        yield node
        yield from _nodes(node)


def circles(imports: Graph) -> list[list[str]]:
    """One for each group of modules that reach each other, as a path that ends where it began."""
    reached = {name: _reached(imports, name) for name in imports}
    found, seen = [], set()
    for name in sorted(imports):
        if name in reached[name] and name not in seen:
            seen |= {other for other in reached[name] if name in reached[other]}
            found.append(_way(imports, name))
    return found


def _reached(imports: Graph, start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = imports[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def _way(imports: Graph, start: str) -> list[str]:
    """The shortest from a module back to itself."""
    ways = [[start]]
    while ways:
        way = ways.pop(0)
        for module in sorted(imports[way[-1]]):
            if module == start:
                return [*way, start]
            if module not in way:
                ways.append([*way, module])
    raise ValueError(f"{start} does not reach itself")
