"""One target in a process of its own, which the runner starts.

    python -m fuzz.one NAME [--repeat FILE ...]        run files, without a fuzzer
    python -m fuzz.one NAME OPTION OF LIBFUZZER ...    fuzz, with `atheris`

It writes a line a second for the runner: executions and bytes until now.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz

OURS = ["packetcore", "packetcore_sockets"]
"""What is instrumented where it is Python."""


def load(name: str) -> Callable[[bytes], None]:
    """A target's function.

    Raises:
        KeyError: there is no such target.
        ImportError: the extension cannot be loaded, and `PACKETCORE_PURE=1` is not set.
    """
    fuzz.TARGETS[name]
    if os.environ.get("PACKETCORE_PURE") != "1":  # else what was not built well would be fuzzed in Python
        importlib.import_module("packetcore._speedups")
    function: Callable[[bytes], None] = importlib.import_module(f"fuzz.{name}").fuzz
    return function


class Counted:
    """A target that says from time to time how far it is."""

    def __init__(self, target: Callable[[bytes], None]) -> None:
        self._target = target
        self._executions = 0
        self._bytes = 0
        self._next = 0.0

    def __call__(self, data: bytes) -> None:
        self._executions += 1
        self._bytes += len(data)
        if time.monotonic() > self._next:
            self._next = time.monotonic() + 1
            self._say()
        try:
            self._target(data)
        except BaseException:
            self._say()
            raise

    def _say(self) -> None:
        sys.stderr.write(f"\nfuzzed {self._executions} {self._bytes}\n")
        sys.stderr.flush()


def search(name: str, options: list[str]) -> None:
    """Fuzz until libFuzzer ends the process."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=OURS, enable_loader_override=False):
        target = load(name)
        if name == "twins":
            importlib.import_module("fuzz.implementations").in_python()
    gc.freeze()  # targets collect garbage, and need not look through the modules for it
    atheris.Setup([sys.argv[0], *options], Counted(target))
    atheris.Fuzz()


def main(arguments: list[str]) -> None:
    """See above."""
    name, *rest = arguments
    if rest[:1] != ["--repeat"]:
        search(name, rest)
        return
    target = load(name)
    for file in rest[1:]:
        target(Path(file).read_bytes())


if __name__ == "__main__":
    main(sys.argv[1:])
