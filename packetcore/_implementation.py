"""The codec in C where it is in use, else its twins in Python."""

from __future__ import annotations

from packetcore._built import speedups

__all__ = ["Decoder", "Output", "Sender", "encode", "only_packets"]

if speedups:
    from packetcore._speedups import Decoder, Output, Sender, encode, only_packets
else:
    from packetcore._codec import encode
    from packetcore._decoder import Decoder, only_packets
    from packetcore._output import Output, Sender
