"""An application on an endpoint without a network, and what goes wrong in it."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from packetcore._config import Config
from packetcore._endpoint import Endpoint
from packetcore._errors import LocalProtocolError, WrongThread
from packetcore._frames import FrameCodec, PacketCodec
from packetcore._handler import Handler
from packetcore._implementation import Decoder, encode
from packetcore._inbox import Inbox, handler_of
from packetcore._packet import AnyPacket
from packetcore._pool import SessionPool
from packetcore._reasons import CloseReason
from packetcore._session import Session
from packetcore._stats import EndpointStats
from packetcore._stream import AsyncStream, SyncStream
from packetcore.framings import Framing
from packetcore.testing._clock import Clock, Condition, Event, Task

_LONGEST = 0xFFFF_FFFF
"""Bytes of a frame that a peer may send here: it keeps to no `max_payload` of ours."""

Application: TypeAlias = "Handler[AnyPacket] | Callable[[AsyncStream[Any]], Awaitable[object]] | type[SyncStream[Any]]"
"""What `serve` and `connect` take, a handler or an async function over a stream; or a class of blocking streams."""


class Side(Generic[AnyPacket]):
    """What `FakeEndpoint` and `FakeDatagramEndpoint` have in common: all but what carries their sessions."""

    endpoint: Endpoint[AnyPacket]
    """The real endpoint."""

    _endpoint_type: type[Endpoint[Any]] = Endpoint

    def __init__(
        self,
        application: Application[AnyPacket],
        config: Config | None = None,
        *,
        is_server: bool = True,
        framing: Framing | None = None,
        codec: PacketCodec[AnyPacket] | None = None,
        peer_codec: PacketCodec[Any] | None = None,
        sessions: SessionPool[Session[AnyPacket]] | None = None,
        clock: Clock | None = None,
        reraise: bool = True,
    ) -> None:
        self.clock = Clock() if clock is None else clock
        """The time of all its sessions."""
        self.errors: list[BaseException] = []
        """What the application has raised, the oldest first."""
        self._raised = 0  # of them
        if reraise:
            self.clock._checks.append(self._raise)
        self._results: dict[Session[Any], object] = {}
        self._streams: dict[Session[Any], SyncStream[Any]] = {}
        self._opened = 0
        self._config = Config() if config is None else config
        self._is_bytes = framing is not None and peer_codec is None and codec is None
        self._codec: FrameCodec[Any] | None = None
        if framing is not None:
            self._codec = FrameCodec(framing, codec if peer_codec is None else peer_codec, _LONGEST, self._note)
        self.endpoint = self._endpoint_type(
            self._handler_of(application),
            config,
            is_server=is_server,
            framing=framing,
            codec=codec,
            sessions=sessions,
            log_exception=self._note,
        )
        self.endpoint.runs_by(self.clock.call_soon)

    @property
    def sessions(self) -> SessionPool[Session[AnyPacket]]:
        """The sessions that live, by id and by identity, as `Server.sessions`."""
        return self.endpoint.sessions

    @property
    def stats(self) -> EndpointStats:
        """What it has seen until now."""
        self.clock.settle()
        return self.endpoint.stats

    def advance(self, seconds: float) -> None:
        """Let time pass; see `Clock.advance`."""
        self.clock.advance(seconds)

    def close(self, grace: float = 5.0) -> None:
        """Shut down as a server does: each handler hears `draining`, nobody is admitted any more, and
        what is left `grace` seconds later is ended with SHUTDOWN."""
        clock, endpoint = self.clock, self.endpoint

        def abort() -> None:
            endpoint.abort(clock.now)

        clock._perform(lambda: endpoint.drain(clock.now, lambda: clock.call_soon(abort)))
        clock.call_at(clock.now + grace, abort)
        clock.settle()

    # What its sessions use.

    def _encode(self, packet: Any) -> bytes:
        """What a peer puts on the wire."""
        if isinstance(packet, (bytes, bytearray, memoryview)) and not self._is_bytes:
            return bytes(packet)
        return encode(packet) if self._codec is None else self._codec.encode(packet)

    def _new_decoder(self) -> Any:
        """What a peer makes of the wire."""
        if self._codec is None:
            return Decoder(max_payload=self._config.max_payload)
        return self._codec.decoder()

    def _new_peer(self) -> tuple[str, int]:
        self._opened += 1
        return ("192.0.2.1", 50_000 + self._opened)

    def _handler_of(self, application: Any) -> Any:
        """What the endpoint takes for an application."""
        if isinstance(application, type) and issubclass(application, SyncStream):
            return lambda: Inbox(partial(self._open_stream, application))
        if isinstance(application, type) or not (isinstance(application, Handler) or callable(application)):
            raise TypeError(f"{application!r} is no Handler, no async function over a stream, and no SyncStream")
        return handler_of(application, self._start)

    def _open_stream(self, stream_type: type[SyncStream[Any]], inbox: Inbox[Any]) -> None:
        clock = self.clock
        self._streams[inbox.session] = stream_type(inbox, clock.time, lambda: Condition(clock))

    def _start(self, function: Callable[[AsyncStream[Any]], Awaitable[object]], inbox: Inbox[Any]) -> None:
        clock = self.clock
        stream = _Stream(inbox, clock.time, lambda: Event(clock))

        async def run(stream: AsyncStream[Any]) -> None:
            awaitable = function(stream)
            if not hasattr(awaitable, "__await__"):
                raise TypeError(
                    f"{function!r} gave {awaitable!r}: a function over a stream is async here; a blocking one is "
                    "called with the `stream` of a session whose application is SyncStream"
                )
            self._results[inbox.session] = await awaitable

        Task(clock, stream.run(run))

    def _note(self, message: str) -> None:
        error = sys.exc_info()[1]
        assert error is not None, message
        self.errors.append(error)

    def _raise(self) -> None:
        if len(self.errors) > self._raised:
            error = self.errors[self._raised]
            self._raised = len(self.errors)
            raise error


class _Stream(AsyncStream[Any]):
    async def close(self) -> None:
        with suppress(WrongThread):  # what a test left unfinished ends where garbage is collected, on any thread
            await super().close()


S = TypeVar("S", bound=Side[Any])


class Fake(Generic[AnyPacket]):
    """What `FakeSession` and `FakeDatagramSession` have in common."""

    def __init__(self, side: Side[AnyPacket]) -> None:
        self.clock = side.clock
        """The time."""
        self._side = side
        self._session: Session[AnyPacket] | None = None
        self._sent: list[AnyPacket] = []
        self._writes: list[bytes] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._session}>"

    @property
    def session(self) -> Session[AnyPacket]:
        """The real session, as the handler has it: `send`, `request`, `bind`, `stats`. Over UDP the latest.

        Raises:
            LocalProtocolError: over UDP, there has been none: no packet has come, or the peer was refused.
        """
        if self._session is None:
            raise LocalProtocolError("session: there is none yet; the peer has sent no packet, or was refused")
        return self._session

    @property
    def stream(self) -> SyncStream[Any]:
        """The stream of this session, for a function that blocks: where that waits, the time passes on.

        Raises:
            LocalProtocolError: the application is no `SyncStream`, or the peer was refused.
        """
        try:
            return self._side._streams[self.session]
        except KeyError:
            raise LocalProtocolError(f"stream: the application of {self.session} is no SyncStream") from None

    @property
    def result(self) -> Any:
        """What the async function over the stream has returned.

        Raises:
            LocalProtocolError: it waits yet, or has raised; or the application is a handler.
        """
        self.clock.settle()
        try:
            return self._side._results[self.session]
        except KeyError:
            raise LocalProtocolError(f"result: no function over a stream of {self.session} has returned") from None

    def advance(self, seconds: float) -> None:
        """Let time pass; see `Clock.advance`."""
        self.clock.advance(seconds)

    @property
    def sent(self) -> list[AnyPacket]:
        """The packets that have reached the peer, the oldest first. It is the list itself: `sent.clear()`
        forgets what has been looked at."""
        self.clock.settle()
        return self._sent

    @property
    def writes(self) -> list[bytes]:
        """What the session has written, each write by itself: over UDP the datagrams, else taken by the system
        or not. The list itself, too."""
        self.clock.settle()
        return self._writes

    @property
    def is_over(self) -> bool:
        """Whether the session has ended and the handler was told."""
        self.clock.settle()
        return self._session is not None and self._session.is_over

    @property
    def close_reason(self) -> CloseReason | None:
        """Why the session ended; `None` while it has not."""
        self.clock.settle()
        return None if self._session is None else self._session.close_reason

    @property
    def errors(self) -> list[BaseException]:
        """What the application has raised, in any session of its endpoint, the oldest first."""
        self.clock.settle()
        return self._side.errors


def side_of(kind: type[S], own: str, application: Any, *, is_server: bool, reraise: bool, **options: Any) -> S:
    """The endpoint of a session: `application`, or a new one of it.

    Args:
        kind: of endpoints.
        own: which options are the session's own, in words.
        application: it, or what a new one takes.
        is_server: see `FakeEndpoint`, as the rest.

    Raises:
        TypeError: there is one, and an option that only a new one takes.
    """
    if not isinstance(application, kind):
        return kind(application, is_server=is_server, reraise=reraise, **options)
    if not (is_server and reraise) or any(option is not None for option in options.values()):
        raise TypeError(f"a session of a {kind.__name__} takes {own} alone: the rest is the endpoint's")
    return application
