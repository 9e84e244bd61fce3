"""The package twice in one process: as it is installed, and a second one all in Python."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from types import ModuleType
from typing import Any

import packetcore
import packetcore.framings


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == "packetcore"


@functools.cache
def in_python() -> Any:
    """The package once more, without the codec in C. What comes of it and of the other have no type in common."""
    own = {name: sys.modules.pop(name) for name in [*sys.modules] if _is_ours(name)}
    before = os.environ.get("PACKETCORE_PURE")
    os.environ["PACKETCORE_PURE"] = "1"
    try:
        twin: ModuleType = importlib.import_module("packetcore")
        importlib.import_module("packetcore.framings")
        return twin
    finally:
        for name in [name for name in sys.modules if _is_ours(name)]:
            del sys.modules[name]
        sys.modules.update(own)
        if before is None:
            del os.environ["PACKETCORE_PURE"]
        else:
            os.environ["PACKETCORE_PURE"] = before


def in_c() -> Any:
    """The package with the codec in C.

    Raises:
        ImportError: it is not built, or `PACKETCORE_PURE` asks for none.
    """
    if not packetcore.speedups:
        raise ImportError("the extension in C is not built, or PACKETCORE_PURE=1 is set")
    return packetcore
