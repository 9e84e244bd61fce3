"""Framings: where frames begin and end in a stream of bytes, and what is malformed.

Each is a small value: `encode` makes of a frame the bytes to send, `decoder` gives what cuts a
stream into frames again. One of your own needs no more than `Framing` says; hold it to the
same laws with `packetcore_conformance.laws`.

    decoder = COBS().decoder(max_frame=1024)
    for event in decoder.feed(data):
        ...  # a frame, as bytes, or a `Malformed`
"""

from packetcore.framings._byte_stuffing import ByteStuffing
from packetcore.framings._check import Check
from packetcore.framings._cobs import COBS
from packetcore.framings._cobsr import COBSR
from packetcore.framings._delimiter import Delimiter
from packetcore.framings._fefd import FEFD
from packetcore.framings._fixed_length import FixedLength
from packetcore.framings._framing import Decoder, Framing
from packetcore.framings._hdlc import HDLC
from packetcore.framings._length_of import LengthOf
from packetcore.framings._length_prefix import LengthPrefix
from packetcore.framings._slip import SLIP

__all__ = [
    "ByteStuffing",
    "COBS",
    "COBSR",
    "Check",
    "Decoder",
    "Delimiter",
    "FEFD",
    "FixedLength",
    "Framing",
    "HDLC",
    "LengthOf",
    "LengthPrefix",
    "SLIP",
]
