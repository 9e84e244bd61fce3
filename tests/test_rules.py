"""The rules of the core, read from its source: what it may import, export and leave unsaid."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import packetcore

FOLDER = Path(packetcore.__file__).parent
SOURCES = sorted(FOLDER.rglob("*.py"))
TREES = {
    ".".join(path.relative_to(FOLDER).with_suffix("").parts): ast.parse(path.read_text(), path.name) for path in SOURCES
}
FORBIDDEN = {"time", "os", "random", "socket", "threading", "asyncio"}
ALLOWED = {"_built": {"os"}}
"""One module reads one environment variable, once: which codec to use."""

OPTIONAL = {"prometheus": {"prometheus_client"}, "_generic": {"typing_extensions"}}
"""What modules import from elsewhere. Metrics are for those who collect them, and are made of that
library's own classes: the package does not import the module, so that it needs nothing itself. The
other is for type checkers alone, which bring it."""

PUBLIC = {"prometheus", "layout"}
"""Modules that are public beside the package, with `framings` and `testing`, which are packages themselves. The
names of `layout` (`U8`) say too little to stand in it."""

each_module = pytest.mark.parametrize("module", TREES)


def imported(tree: ast.Module) -> Iterator[str]:
    """The modules that a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            yield node.module
        elif isinstance(node, ast.Name) and node.id == "__import__":
            yield "__import__"


@each_module
def test_the_core_has_no_clock_no_socket_no_thread_and_no_chance(module: str) -> None:
    roots = {name.partition(".")[0] for name in imported(TREES[module])}
    assert not roots & FORBIDDEN - ALLOWED.get(module, set())


@each_module
def test_the_core_does_not_import_upwards(module: str) -> None:
    names = set(imported(TREES[module]))
    assert not [name for name in names if name.startswith("packetcore_")]
    assert "packetcore" not in names, "modules import each other, not the package"


@each_module
def test_the_core_depends_on_the_standard_library_alone(module: str) -> None:
    roots = {name.partition(".")[0] for name in imported(TREES[module])} - {"packetcore"}
    assert roots - sys.stdlib_module_names == OPTIONAL.get(module, set())


def test_the_package_does_not_import_what_is_optional() -> None:
    needed = {name for names in OPTIONAL.values() for name in names}
    code = f"import sys, packetcore; sys.exit(bool({needed} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0


@each_module
def test_a_module_is_private_and_the_package_is_what_is_public(module: str) -> None:
    assert module.rpartition(".")[2].startswith("_") or module in PUBLIC


def test_what_the_package_imports_is_what_it_exports() -> None:
    names = {
        alias.asname or alias.name
        for node in TREES["__init__"].body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
    }
    assert set(packetcore.__all__) == {name for name in names if not name.startswith("_")}
    assert all(hasattr(packetcore, name) for name in packetcore.__all__)


def test_all_is_sorted_constants_then_classes_then_functions() -> None:
    def place(name: str) -> tuple[int, str]:
        return 0 if name.isupper() else 1 if name[0].isupper() else 2, name

    assert packetcore.__all__ == sorted(set(packetcore.__all__), key=place)


# Everything public says what it is.

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def is_public(name: str) -> bool:
    return not name.startswith("_")


def is_overload(node: Definition) -> bool:
    """Whether it only types what says it all."""
    return any(ast.unparse(decorator) == "overload" for decorator in node.decorator_list)


CLASSES = {node.name: node for tree in TREES.values() for node in tree.body if isinstance(node, ast.ClassDef)}


def documented_above(name: str, bases: list[ast.expr]) -> bool:
    """Whether a base class in the core says what a method of this name does."""
    for base in bases:
        base = base.value if isinstance(base, ast.Subscript) else base
        parent = CLASSES.get(base.id) if isinstance(base, ast.Name) else None
        if parent is not None:
            method = next((node for node in parent.body if isinstance(node, Definition) and node.name == name), None)
            if (method is not None and ast.get_docstring(method)) or documented_above(name, parent.bases):
                return True
    return False


SAID_BY_PROTOCOL = {"encode", "decoder", "resynchronises", "pending", "feed", "feed_eof", "feed_timeout"}
"""What `Framing` and `Decoder` say of every framing."""


def undocumented(tree: ast.Module, said: set[str]) -> Iterator[str]:
    """Public classes, functions, methods and dataclass fields that say nothing of themselves, nor does
    their class of its arguments, nor who has `said` it of all."""
    for node in tree.body:
        if not isinstance(node, Definition) or not is_public(node.name) or is_overload(node):
            continue
        if not ast.get_docstring(node):
            yield node.name
        if not isinstance(node, ast.ClassDef):
            continue
        arguments = (ast.get_docstring(node) or "").partition("Args:")[2]
        for number, member in enumerate(node.body):
            if isinstance(member, Definition) and is_public(member.name) and not is_overload(member):
                is_setter = any(isinstance(decorator, ast.Attribute) for decorator in member.decorator_list)
                inherits = documented_above(member.name, node.bases)
                if not (ast.get_docstring(member) or is_setter or inherits or member.name in said):
                    yield f"{node.name}.{member.name}"
            elif isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
                below = node.body[number + 1] if number + 1 < len(node.body) else None
                is_said = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
                name = member.target.id
                if is_public(name) and not (is_said or name in said or f"{name}: " in arguments):
                    yield f"{node.name}.{member.target.id}"


@each_module
def test_a_module_says_what_it_decides(module: str) -> None:
    assert ast.get_docstring(TREES[module])


@each_module
def test_everything_public_says_what_it_is(module: str) -> None:
    said = SAID_BY_PROTOCOL if module.startswith("framings.") and module != "framings._framing" else set()
    assert list(undocumented(TREES[module], said)) == []
