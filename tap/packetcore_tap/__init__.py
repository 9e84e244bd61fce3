"""What stands on the line between two ends.

Links that misbehave, as state machines without a socket or a clock: `Impairments`, `StreamLink`,
`DatagramLink`. Captures as Wireshark reads them, without a file: `CaptureWriter`, `Side`; and read, with `hear` (of a
`Readable`; `is_capture` knows one) or `Conversations`: a `Chunk`, a `Gap`, an `Ended` or a `Reset` of a
`Conversation`. What sessions say, in files: `Recorder`; what others say: `Recording`. What a recording comes to:
`Events`, `events`, `Told`, `as_json`, `event_fields`, `differences`, `Difference`, `Shrinking`, `shortest`,
`capture_of`. A proxy of two links for each connection, on a thread of its own: `Tap`.
"""

from packetcore_tap._capture import CaptureWriter, Side
from packetcore_tap._connection import Ending, Passed, TapConnection, TapObserver
from packetcore_tap._conversations import Conversations
from packetcore_tap._differences import Difference, differences
from packetcore_tap._direction import DIRECTIONS, Direction
from packetcore_tap._errors import CaptureError
from packetcore_tap._events import Events, Told, as_json, event_fields, events
from packetcore_tap._fault import Fault
from packetcore_tap._heard import Chunk, Conversation, Ended, Gap, Heard, Reset, capture_of
from packetcore_tap._impairments import Impairments
from packetcore_tap._link import DatagramLink, StreamLink
from packetcore_tap._proxy import Tap
from packetcore_tap._reading import Readable, hear, is_capture
from packetcore_tap._recorder import Recorder
from packetcore_tap._recording import MIN_BYTES, Recording
from packetcore_tap._shrinking import Shrinking, shortest
from packetcore_tap._sight import Seen

__version__ = "0.1.0"

__all__ = [
    "DIRECTIONS",
    "MIN_BYTES",
    "CaptureError",
    "CaptureWriter",
    "Chunk",
    "Conversation",
    "Conversations",
    "DatagramLink",
    "Difference",
    "Direction",
    "Ended",
    "Ending",
    "Events",
    "Fault",
    "Gap",
    "Heard",
    "Impairments",
    "Passed",
    "Readable",
    "Recorder",
    "Recording",
    "Reset",
    "Seen",
    "Shrinking",
    "Side",
    "StreamLink",
    "Tap",
    "TapConnection",
    "TapObserver",
    "Told",
    "as_json",
    "capture_of",
    "differences",
    "event_fields",
    "events",
    "hear",
    "is_capture",
    "shortest",
]
