"""What can go wrong, and whose fault it is.

`LocalProtocolError` is the caller's mistake and leaves everything as it was.
`RemoteProtocolError` is the peer's. An adapter never has to tell them apart: the
core reports the peer's mistakes as events and raises only for the caller's.
"""

from __future__ import annotations

from collections.abc import Hashable

from packetcore._reasons import CloseReason, Reason, Refusal


class ProtocolError(Exception):
    """The protocol was broken, on this side or on the other."""


class LocalProtocolError(ProtocolError):
    """The caller asked for something that is not legal now; nothing was changed."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something that the protocol does not allow."""


class MalformedFrame(RemoteProtocolError):
    """`decode` was given something other than exactly one sound frame.

    Attributes:
        reason: what was wrong with it.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason.name}: {self.args[1]}"


class SessionClosed(LocalProtocolError):
    """The session can no longer do that: it is closing or closed.

    Attributes:
        reason: why it ends; `None` where that is not settled yet.
    """

    def __init__(self, reason: CloseReason | None = None) -> None:
        super().__init__(reason)
        self.reason = reason

    @property
    def is_clean(self) -> bool:
        """Whether the conversation ended the way one side meant it to."""
        return self.reason is not None and self.reason.is_clean

    def __str__(self) -> str:
        return "the session is closing" if self.reason is None else f"the session is closed: {self.reason.name}"


class NotConnected(SessionClosed):
    """A client that comes back has no connection now, and keeps as many packets as it may.

    Attributes:
        keep: how many that is.
    """

    def __init__(self, keep: int) -> None:
        super().__init__(None)
        self.keep = keep

    def __str__(self) -> str:
        return f"not connected, and keep={self.keep} packets are kept already" if self.keep else "not connected"


class WrongThread(LocalProtocolError):
    """A session was used on a thread that is not its own; nothing was sent or changed.

    `Session.call_soon`, and `call_soon` of a server or a client, may be called from any
    thread, and run a function on the session's own.
    """

    def __str__(self) -> str:
        return f"{self.args[0]} belongs to another thread: use its call_soon(function, *args) here"


class PoolFull(LocalProtocolError):
    """A pool is at its cap, or its server shuts down; the message says which.

    Attributes:
        refusal: the same as a value, where it is a `SessionPool`.
    """

    def __init__(self, detail: str, refusal: Refusal | None = None) -> None:
        super().__init__(detail)
        self.refusal = refusal


class PoolClosed(LocalProtocolError):
    """A `ConnectionPool` was closed and gives no connection any more."""


class RequestPending(LocalProtocolError):
    """Another request has the id still, in flight or held; the message says which, and how long.

    Attributes:
        id: the id asked with; `None` where one was to be picked and none is free.
    """

    def __init__(self, id: int | None, detail: str) -> None:
        super().__init__(id, detail)
        self.id = id

    def __str__(self) -> str:
        return str(self.args[1])


class IdentityTaken(LocalProtocolError):
    """Another session holds this identity and the takeover policy is "reject".

    Attributes:
        identity: the identity asked for.
        holder: the id of the session that holds it.
    """

    def __init__(self, identity: Hashable, holder: int) -> None:
        super().__init__(identity, holder)
        self.identity = identity
        self.holder = holder

    def __str__(self) -> str:
        return f"identity {self.identity!r} is held by session {self.holder}"
