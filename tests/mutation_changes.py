"""What `mutation.py` changes in a file, and how a process comes to have the change."""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.file_mutation import MutationVisitor
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

LOGS = {"debug", "info", "warning", "error", "exception", "warn"}


class Mutant(NamedTuple):
    name: str
    file: Path
    begin: int
    end: int
    text: str
    """What stands in the file from `begin` to `end` instead."""
    statement: frozenset[int]
    """The lines of the statement that is changed; of the default of a parameter none."""
    function: range
    """The lines of the function around it."""

    def code(self) -> str:
        source = self.file.read_text(encoding="utf-8")
        return source[: self.begin] + self.text + source[self.end :]


class Changes(MutationVisitor):
    """All that mutmut would change within functions, decorated ones too; the words of errors and log lines not."""

    def __init__(self) -> None:
        super().__init__(mutation_operators, IgnoredCode(set(), set(), set()))
        self.around: list[cst.CSTNode] = []
        self.found: list[tuple[str, cst.FunctionDef, cst.CSTNode, cst.CSTNode, bool]] = []

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef):
            return any("overload" in cst.Module([]).code_for_node(each) for each in node.decorators)
        return super()._skip_node_and_children(node)

    def on_visit(self, node: cst.CSTNode) -> bool:
        deeper = super().on_visit(node)
        self.around.append(node)
        return deeper

    def on_leave(self, original_node: cst.CSTNode) -> None:
        super().on_leave(original_node)
        self.around.pop()

    def _create_mutations(self, node: cst.CSTNode) -> None:
        place = [each for each in self.around if isinstance(each, (cst.FunctionDef, cst.ClassDef))]
        functions = [each for each in place if isinstance(each, cst.FunctionDef)]
        if not functions or (isinstance(node, cst.SimpleString) and (" " in node.value or self._is_told())):
            return
        name = ".".join(each.name.value for each in place)
        default = any(isinstance(each, cst.Param) for each in self.around)
        for kind, operator in self._operators:
            if isinstance(node, kind):
                self.found.extend((name, functions[0], node, changed, default) for changed in operator(node))

    def _is_told(self) -> bool:
        """Whether this is in an error or a log line."""
        called = [each.func for each in self.around if isinstance(each, cst.Call)]
        names = {each.attr.value for each in called if isinstance(each, cst.Attribute)}
        return any(isinstance(each, cst.Raise) for each in self.around) or not names.isdisjoint(LOGS)


def mutants(file: Path, module: str) -> Iterator[Mutant]:
    source = file.read_text(encoding="utf-8")
    wrapper = MetadataWrapper(cst.parse_module(source))
    changes = Changes()
    wrapper.visit(changes)
    positions = wrapper.resolve(PositionProvider)
    starts = [0]
    for each in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(each))

    def span(node: cst.CSTNode) -> tuple[int, int]:
        place = positions[node]
        return starts[place.start.line - 1] + place.start.column, starts[place.end.line - 1] + place.end.column

    statements = sorted(headers(ast.parse(source)), key=len, reverse=True)
    numbers: Counter[str] = Counter()
    for name, function, node, changed, default in changes.found:
        begin, end = span(node)
        before, text = (cst.Module([]).code_for_node(each).strip() for each in (node, changed))
        if before != source[begin:end]:  # of several lines, or in brackets
            begin, end = 0, len(source)
            text = cst.ensure_type(wrapper.module.deep_replace(node, changed), cst.Module).code
        line = positions[node].start.line
        statement = {line}.union(*[header for header in statements if line in header][-1:])
        numbers[name] += 1
        body = hashlib.sha1(source[slice(*span(function))].encode()).hexdigest()[:6]
        place = positions[function]
        yield Mutant(
            f"{module}.{name}#{body}.{numbers[name]}",
            file,
            begin,
            end,
            text,
            frozenset() if default else frozenset(statement),
            range(place.start.line, place.end.line + 1),
        )


def headers(tree: ast.Module) -> Iterator[range]:
    """The lines of each statement; of one with a body, those before it."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.stmt, ast.excepthandler)):
            inner = [
                each.lineno
                for each in getattr(node, "body", []) or getattr(node, "cases", [])
                if hasattr(each, "lineno")
            ]
            yield range(node.lineno, max(node.lineno + 1, inner[0]) if inner else (node.end_lineno or node.lineno) + 1)


def change(mutant: Mutant, functions: list[types.FunctionType]) -> bool:
    """Gives the functions, and modules that this process loads from now on, the code of the mutant.

    Returns:
        Whether it is other code for Python.
    """
    name = str(mutant.file)
    code = compile(mutant.code(), name, "exec")
    if code == compile(mutant.file.read_bytes(), name, "exec"):
        return False
    changed: dict[tuple[str, int], types.CodeType] = {}
    waiting = [code]
    while waiting:
        each = waiting.pop()
        changed[each.co_name, each.co_firstlineno] = each
        waiting.extend(const for const in each.co_consts if isinstance(const, types.CodeType))
    parameters: dict[int, ast.arguments] = {}
    for node in ast.walk(ast.parse(mutant.code())) if not mutant.statement else ():
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            parameters[node.decorator_list[0].lineno if node.decorator_list else node.lineno] = node.args
    for function in functions:
        old = function.__code__
        new = changed.get((old.co_name, old.co_firstlineno))
        if new is not None and not new.co_freevars:  # `super` may have gone
            new = new.replace(co_freevars=old.co_freevars)
        if new is not None and new != old and len(new.co_freevars) == len(old.co_freevars):
            function.__code__ = new
        if given := parameters.get(old.co_firstlineno):

            def value(node: ast.expr, function: types.FunctionType = function) -> object:
                return eval(ast.unparse(node), function.__globals__)

            function.__defaults__ = tuple(map(value, given.defaults)) or None
            pairs = zip(given.kwonlyargs, given.kw_defaults, strict=True)
            function.__kwdefaults__ = {key.arg: value(node) for key, node in pairs if node} or None
    load = importlib.machinery.SourceFileLoader.get_code

    def get_code(loader: importlib.machinery.SourceFileLoader, fullname: str) -> types.CodeType | None:
        return code if loader.path == name else load(loader, fullname)

    importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[method-assign,assignment]
    return True
