"""What decodes one direction: packets, or where there is a framing its frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from packetcore import Decoder, Malformed, Packet
from packetcore.framings import Framing

Decoded = Packet | bytes | Malformed
"""A packet, a frame of another framing, or what is malformed."""


class Decoding(Protocol):
    """As much as is needed of a decoder."""

    def feed(self, data: bytes, /) -> Sequence[Decoded]: ...

    def feed_eof(self) -> Sequence[Decoded]: ...


def new_decoder(framing: Framing | None, max_payload: int) -> Decoding:
    """A decoder of what a framing carries; `None` for that of `packetcore.Packet`.

    Raises:
        ValueError: `max_payload` is out of its range.
    """
    return Decoder(max_payload=max_payload) if framing is None else framing.decoder(max_payload)
