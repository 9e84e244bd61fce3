"""What can go wrong between a caller and a session that may be anywhere."""

from __future__ import annotations

from collections.abc import Hashable

from packetcore import IdentityTaken, LocalProtocolError, NotConnected


class IdentityNotConnected(NotConnected):
    """No session holds the identity, as far as the directory knows.

    Attributes:
        identity: that was asked for.
    """

    def __init__(self, identity: Hashable) -> None:
        super().__init__(0)
        self.identity = identity

    def __str__(self) -> str:
        return f"no session holds the identity {self.identity!r}"


class BrokerAway(NotConnected):
    """The broker cannot be reached, or does not do what a worker needs; without it only sessions of this
    worker can be reached.

    Attributes:
        url: the broker's.
    """

    def __init__(self, url: str, what: str = "cannot be reached") -> None:
        super().__init__(0)
        self.url = url
        self._what = what

    def __str__(self) -> str:
        return f"the broker at {self.url} {self._what}"


class SlowConsumer(LocalProtocolError):
    """What takes packets does not keep up, and this one was not sent: a device that leaves too much
    unread or unanswered, or a worker that leaves too many calls unanswered. Its session goes on."""


class NotDelivered(LocalProtocolError):
    """The worker that holds the session could not send the packet; the message says why."""


class IdentityTakenElsewhere(IdentityTaken):
    """A session of another worker holds this identity and the takeover policy is "reject".

    Attributes:
        worker: which one.
    """

    def __init__(self, identity: Hashable, holder: int, worker: str) -> None:
        super().__init__(identity, holder)
        self.worker = worker

    def __str__(self) -> str:
        return f"{super().__str__()} of worker {self.worker}"
