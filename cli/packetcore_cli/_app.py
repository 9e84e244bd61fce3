"""`packetcore serve --app package.module:Gateway`: what a user has written, found by its path."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from packetcore import Driver, Handler, SessionPool
from packetcore_cli._failure import Failure
from packetcore_cli._terminal import Terminal
from packetcore_sockets import SyncDriver

Application = Handler[Any] | Callable[[Any], Any]
"""What the servers of every adapter take: a handler, or a function over a stream."""


class Served(NamedTuple):
    """What a server is started with."""

    application: Application
    sessions: SessionPool[Any] | None = None
    """The register that it shares with others, such as that of a cluster; `None` for one of its own."""


class App:
    """What a path names, imported; the application is made of it by `application`.

    Args:
        path: "package.module:Name", the name with dots where it is something's attribute. The current
            directory is looked in first.
        err: where the traceback of what raises is shown; `None` to show none.

    Raises:
        Failure: the path names nothing, or importing it raised.
    """

    def __init__(self, path: str, err: Terminal | None) -> None:
        self._path = path
        self._err = err
        module, _, name = path.partition(":")
        if not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
            raise Failure(f"--app {path!r} is not of the form package.module:Name")
        self._found = self._import(module)
        for at, part in enumerate(names := name.split(".")):
            try:
                self._found = getattr(self._found, part)
            except AttributeError:
                where = ".".join([module, *names[:at]])
                raise Failure(f"--app {path!r}: {where} has no {part!r}") from None

    def application(self, driver: Driver, leaving: ExitStack) -> Served:
        """What is to be served. A class, and a function without parameters, is called for it, on the
        runtime's thread and once; an `async def` without parameters is awaited. What is a context manager then is
        entered. Any of them may give a pair, the second of which is the register of sessions.

        Args:
            leaving: leaves the context manager, when the server is closed.

        Raises:
            Failure: it raised, or gave no application.
        """
        found: Any = self._found
        if isinstance(found, type) and _needed(found):
            raise Failure(
                f"--app {self._path!r}: this class needs arguments; name a function without any that makes one"
            )
        if isinstance(found, type) or (callable(found) and not isinstance(found, Handler) and _needed(found) == 0):
            found = self._called(driver, f"{self._path.partition(':')[2]}() raised", found)
        if isinstance(found, (AbstractAsyncContextManager, AbstractContextManager)) and not isinstance(found, Handler):
            found = self._entered(driver, found, leaving)
        if isinstance(found, tuple) and len(found) == 2:
            found, sessions = found
            if not isinstance(sessions, SessionPool):
                kind = type(sessions).__name__
                raise Failure(f"--app {self._path!r}: its sessions are of type {kind}, which is no SessionPool")
            return Served(self._checked(driver, found), sessions)
        return Served(self._checked(driver, found))

    def _checked(self, driver: Driver, found: Any) -> Application:
        if isinstance(found, Handler):
            return found
        if callable(found) and not isinstance(found, type) and _needed(found) == 1:
            if _is_async(found) and isinstance(driver, SyncDriver):
                raise Failure(f"--app {self._path!r} is an async def, and this transport blocks: it takes a def")
            function: Callable[[Any], Any] = found
            return function
        what = ("" if found is self._found else "called, it gives ") + f"something of type {type(found).__name__}"
        if isinstance(found, Coroutine):  # of a runtime that does not await
            found.close()
        raise Failure(
            f"--app {self._path!r} is no application: {what}, "
            "which is no packetcore.Handler and no function over one stream"
        )

    def _entered(self, driver: Driver, manager: Any, leaving: ExitStack) -> Any:
        enter, leave = "__enter__", "__exit__"
        if isinstance(manager, AbstractAsyncContextManager):
            if isinstance(driver, SyncDriver):
                raise Failure(f"--app {self._path!r} is for async with, and this transport blocks: it takes a with")
            enter, leave = "__aenter__", "__aexit__"
        given = self._called(driver, "entering it raised", getattr(manager, enter))
        leaving.callback(self._called, driver, "leaving it raised", getattr(manager, leave), None, None, None)
        return given

    def _called(self, driver: Driver, what: str, function: Callable[..., Any], *args: object) -> Any:
        """Call it on the runtime's thread.

        Raises:
            Failure: it raised, which was `what`.
        """
        try:
            return driver.call(_without_exits, function, *args)
        except _Exited as exited:
            raise self._failure(what, exited.error) from None
        except Exception as error:
            raise self._failure(what, error) from None

    def _import(self, module: str) -> Any:
        if (here := os.getcwd()) not in sys.path:
            sys.path.insert(0, here)
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is not None and f"{module}.".startswith(f"{error.name}."):
                raise Failure(f"--app {self._path!r}: no module {error.name!r}, looked in {here} too") from None
            raise self._failure(f"importing {module} raised", error) from None
        except (Exception, SystemExit) as error:
            raise self._failure(f"importing {module} raised", error) from None

    def _failure(self, what: str, error: BaseException) -> Failure:
        if self._err is not None:
            for line in "".join(traceback.format_exception(error)).splitlines():
                self._err.line(line)
        text = error.msg if isinstance(error, SyntaxError) else str(error)
        reason = type(error).__name__ + (f": {text}" if text else "")
        hint = "" if self._err is not None else "; --verbose shows the traceback"
        return Failure(f"--app {self._path!r}: {what} {reason} ({_where(error)}){hint}")


class _Exited(Exception):
    """A `SystemExit`, on its way out of a runtime that it would end."""

    def __init__(self, error: SystemExit) -> None:
        self.error = error


def _without_exits(function: Callable[..., Any], *args: object) -> Any:
    try:
        return function(*args)
    except SystemExit as error:
        raise _Exited(error) from None


def _needed(function: Callable[..., Any]) -> int | None:
    """How many arguments it has to be given; `None` where that cannot be told, or some by name."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    needed = [one for one in parameters if one.default is one.empty and one.kind not in _RESTS]
    if any(one.kind is one.KEYWORD_ONLY for one in needed):
        return None
    return len(needed)


_RESTS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _is_async(function: Callable[..., Any]) -> bool:
    # Of an instance of a class it is the method that says so.
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _where(error: BaseException) -> str:
    """Where it was raised, and not where in the machinery of imports."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}, line {error.lineno}"
    found, line = "nowhere", 0
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        if not (name := trace.tb_frame.f_code.co_filename).startswith("<frozen "):
            found, line = Path(name).name, trace.tb_lineno
        trace = trace.tb_next
    return f"{found}, line {line}"
