"""Whether the codec in C is used: if it was built, and unless `PACKETCORE_PURE=1` in the
environment asks for the one in Python. It is looked at once, when the package is imported; no
other module of the core reads the environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

speedups = os.environ.get("PACKETCORE_PURE", "0") in ("", "0")
"""Whether `Packet`, `encode` and `Decoder` are those in C."""

if speedups and not TYPE_CHECKING:  # its types are those of its twins, which need this
    try:
        from packetcore._speedups import Packet  # noqa: F401
    except ImportError:
        speedups = False
