"""No distribution of this repository reaches into another: what begins with an underscore is its own."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from types import resolve_bases

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    path.parent.name: path.parent
    for place in ("packetcore", "transports/*/*", "cli/*", "conformance/*", "tap/*", "cluster/*", "examples/*/*")
    for path in ROOT.glob(f"{place}/__init__.py")
}
"""Where the sources of each distribution are, by the name that it is imported by."""

DOCUMENTED = {"_exit", "_replace"}
"""What the standard library tells everybody to use."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name not in DOCUMENTED


def is_foreign(module: str, package: str) -> bool:
    """Whether a module belongs to another distribution of ours."""
    return module.partition(".")[0] in {*PACKAGES} - {package}


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [f"{node.module}.{alias.name}" for alias in node.names] if isinstance(node, ast.ImportFrom) else []


def is_own(node: ast.AST) -> bool:
    return ast.unparse(node) in ("self", "cls", "super()")


def defined(tree: ast.AST) -> Iterator[str]:
    """Every name that is given to something: a function, class, module, variable, attribute or slot."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.alias(name=name) | ast.Constant(value=str(name)):
                yield name


def inherited(node: ast.ClassDef, module: str) -> set[str]:
    """What is private to the classes of other distributions that a class inherits from."""
    names: set[str] = set()
    for written in node.bases:
        try:
            value = eval(ast.unparse(written), vars(importlib.import_module(module)))
        except NameError:  # a class within a function, of a class within it
            continue
        for base in (base for known in resolve_bases((value,)) for base in known.__mro__):
            if is_foreign(base.__module__, module.partition(".")[0]):
                has_source = inspect.getsourcefile(base) is not None
                names |= {*vars(base), *(defined(ast.parse(dedent(inspect.getsource(base)))) if has_source else ())}
    return {*filter(is_private, names)}


def violations(package: str) -> Iterator[str]:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGES[package].rglob("*.py"))}
    own = {name for tree in trees.values() for name in defined(tree)}
    for path, tree in trees.items():
        module = ".".join((package, *path.relative_to(PACKAGES[package]).with_suffix("").parts))
        for node in ast.walk(tree):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            for name in imported(node):
                if is_foreign(name, package) and any(map(is_private, name.split("."))):
                    yield f"{where} imports {name}"
            if isinstance(node, ast.Attribute) and is_private(node.attr) and not is_own(node.value):
                if node.attr not in own:
                    yield f"{where} uses {ast.unparse(node)}"
            elif isinstance(node, ast.ClassDef):
                theirs = inherited(node, module)
                used = {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute) and is_own(each.value)}
                for name in sorted(theirs & (used | {*defined(node)})):
                    yield f"{where} {node.name} uses {name}, which it inherits"


def test_no_distribution_touches_what_is_private_to_another() -> None:
    assert {"packetcore", "packetcore_cli", "packetcore_gevent", "packetcore_trio"} < PACKAGES.keys()
    assert [each for package in sorted(PACKAGES) for each in violations(package)] == []
