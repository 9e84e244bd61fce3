"""The codec in C where it is in use, else its twins in Python."""

from __future__ import annotations

from packetcore._built import speedups

__all__ = [
    "Decoder",
    "Items",
    "Latch",
    "Order",
    "Output",
    "Pump",
    "Receiver",
    "Sender",
    "encode",
    "masked",
    "open_latches",
]

if speedups:
    from packetcore._speedups import (
        Decoder,
        Items,
        Latch,
        Order,
        Output,
        Pump,
        Receiver,
        Sender,
        encode,
        masked,
        open_latches,
    )
else:
    from packetcore._codec import encode
    from packetcore._decoder import Decoder
    from packetcore._items import Items
    from packetcore._latch import Latch, open_latches
    from packetcore._mask import masked
    from packetcore._order import Order
    from packetcore._output import Output
    from packetcore._pump import Pump
    from packetcore._receiver import Receiver
    from packetcore._sender import Sender
