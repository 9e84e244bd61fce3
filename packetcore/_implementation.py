"""`encode` and `Decoder`: those in C where they are in use, else their twins in Python."""

from __future__ import annotations

from packetcore._built import speedups

__all__ = ["Decoder", "encode"]

if speedups:
    from packetcore._speedups import Decoder, encode
else:
    from packetcore._codec import encode
    from packetcore._decoder import Decoder
