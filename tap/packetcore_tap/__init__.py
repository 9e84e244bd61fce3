"""What stands on the line between two ends.

Links that misbehave, as state machines without a socket or a clock: `Impairments`, `StreamLink`,
`DatagramLink`. Captures as Wireshark reads them, without a file: `CaptureWriter`, `Side`.
"""

from packetcore_tap._capture import CaptureWriter, Side
from packetcore_tap._impairments import Impairments
from packetcore_tap._link import DatagramLink, StreamLink

__version__ = "0.1.0"

__all__ = ["CaptureWriter", "DatagramLink", "Impairments", "Side", "StreamLink"]
