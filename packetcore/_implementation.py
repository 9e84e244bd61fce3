"""The codec in C where it is in use, else its twins in Python."""

from __future__ import annotations

from packetcore._built import speedups

__all__ = ["Decoder", "Items", "Order", "Output", "Pump", "Receiver", "encode", "masked"]

if speedups:
    from packetcore._speedups import Decoder, Items, Order, Output, Pump, Receiver, encode, masked
else:
    from packetcore._codec import encode
    from packetcore._decoder import Decoder
    from packetcore._items import Items
    from packetcore._mask import masked
    from packetcore._order import Order
    from packetcore._output import Output
    from packetcore._pump import Pump
    from packetcore._receiver import Receiver
