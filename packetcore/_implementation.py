"""Which codec is in use: the one in C where it was built, else its twin in Python.

`PACKETCORE_PURE=1` in the environment asks for the one in Python. It is looked at once, when
the package is imported; no other module of the core reads the environment.
"""

from __future__ import annotations

import os

__all__ = ["Decoder", "encode", "speedups"]

speedups = os.environ.get("PACKETCORE_PURE", "0") in ("", "0")
"""Whether `encode` and `Decoder` are those in C."""

if speedups:
    try:
        from packetcore._speedups import Decoder, encode
    except ImportError:
        speedups = False
if not speedups:
    from packetcore._codec import encode
    from packetcore._decoder import Decoder
