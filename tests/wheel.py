"""Whether an installed wheel is whole: the extension is there, is in use, and says what its twin says.

python tests/wheel.py     what cibuildwheel runs with each wheel; needs nothing but packetcore
"""

from __future__ import annotations

import sys

from packetcore import Packet, _built, _codec, _decoder, _speedups

packets = [Packet(size, b"\xfe\xfd\x00" * size, type=size % 256) for size in (0, 1, 5, 30, 1_000)]
stream = b"".join(map(_speedups.encode, packets))
whole = (
    _built.speedups
    and stream == b"".join(map(_codec.encode, packets))
    and _speedups.Decoder().feed(stream) == packets == _decoder.Decoder().feed(stream)
)
sys.exit(0 if whole else "the extension and its Python twin differ, or it is not in use")
