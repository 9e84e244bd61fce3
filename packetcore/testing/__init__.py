"""Sessions for unit tests: without sockets, sleep or a runtime.

`FakeSession` is one session of an application, seen from its peer; `FakeEndpoint` a server with several;
`FakeDatagramSession` and `FakeDatagramEndpoint` the same over UDP. `Pair` is a client and a server, joined.
`Clock` is the time of them all.
"""

from packetcore.testing._clock import Clock
from packetcore.testing._datagrams import FakeDatagramEndpoint, FakeDatagramSession
from packetcore.testing._pair import Pair
from packetcore.testing._streams import FakeEndpoint, FakeSession

__all__ = [
    "Clock",
    "FakeDatagramEndpoint",
    "FakeDatagramSession",
    "FakeEndpoint",
    "FakeSession",
    "Pair",
]
