"""A client that comes back: the part of every adapter's `Client` that opens no socket."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Generic

from packetcore._backoff import Backoff, Redial
from packetcore._config import Config
from packetcore._endpoint import Endpoint, log_exception
from packetcore._errors import NotConnected, SessionClosed
from packetcore._handler import Handler
from packetcore._inbox import F, Inbox, handler_of
from packetcore._output import check_packet
from packetcore._packet import AnyPacket
from packetcore._reasons import CloseReason
from packetcore._session import Session
from packetcore._stats import EndpointStats
from packetcore._waiting import Handle

Dial = Callable[[Endpoint[Any], Callable[[Session[Any] | Exception], object]], Handle]
"""Connects for an endpoint. Calls back once with a session that has begun, or with what went wrong,
but not before it returns, and not at all once it is cancelled. To cancel it once the session has begun
does nothing: that is the session's affair."""


class ClientBase(Generic[AnyPacket]):
    """Connects, and connects again whenever the connection is lost, until it is closed.

    Its handler hears `connected` and `disconnected` for each connection that was made. What
    was sent and not yet taken by the system when one is lost, is lost with it.

    Args:
        handler: a handler for all connections, or a function over the adapter's `Stream`
            that is run anew for each.
        start: called with that function and the inbox of each new session: run it.
        config: limits and timeouts.
        reconnect: how long to wait between tries.
        dial: makes one try. The first begins with `dial`.
        on_change: called when the session is over, or a try has failed.
        keep: how many packets sent while disconnected are kept for the next connection.
        random: gives numbers from 0 to below 1 for the jitter.
        clock: tells the time that the session's inputs are given.
        call_at: calls something at a time of that clock.
        log_exception: see `Endpoint`.
        endpoint: makes the endpoint.
    """

    def __init__(
        self,
        handler: Handler[AnyPacket] | F,
        start: Callable[[F, Inbox[Any]], object],
        config: Config | None,
        reconnect: Backoff,
        dial: Dial,
        on_change: Callable[[], object],
        *,
        keep: int,
        random: Callable[[], float],
        clock: Callable[[], float],
        call_at: Callable[[float, Callable[[], object]], Handle],
        log_exception: Callable[[str], object] = log_exception,
        endpoint: Callable[..., Endpoint[AnyPacket]] = Endpoint,
    ) -> None:
        if keep < 0:
            raise ValueError(f"keep={keep} must not be below 0")
        self.endpoint = endpoint(handler_of(handler, start), config, log_exception=log_exception)
        """What its connections share."""
        self.endpoint.on_admitted = self._admitted
        self.endpoint.on_opened = self._opened
        self.endpoint.on_finished = lambda session: self._finished()
        self.session: Session[AnyPacket] | None = None
        """The session of the connection that there is; `None` while there is none."""
        self.is_closed = False
        """Whether `close` was called."""
        self._redial = Redial(reconnect, random)
        self._dial = dial
        self._on_change = on_change
        self._clock = clock
        self._call_at = call_at
        self._dialling: Handle | None = None  # or the wait for it
        self._keep = keep
        self._kept: deque[AnyPacket] = deque()

    @property
    def stats(self) -> EndpointStats:
        """The counters of all its connections; CONNECT_FAILED among `closed` counts tries."""
        return self.endpoint.stats

    @property
    def kept(self) -> int:
        """How many packets wait for the next connection."""
        return len(self._kept)

    def send(self, packet: AnyPacket) -> None:
        """Send a packet now, or once connected if there is still room for it among those kept.

        Raises:
            NotConnected: there is no connection, and no room.
            SessionClosed: the client was closed.
            LocalProtocolError: the payload exceeds `max_payload`.
        """
        if self.session is not None and self.session.is_open:
            self.session.send(packet)
        elif self.is_closed:
            raise SessionClosed(CloseReason.LOCAL)
        elif len(self._kept) >= self._keep:
            raise NotConnected(self._keep)
        else:
            if self.endpoint.is_framed and self.endpoint.codec is not None:
                self.endpoint.codec.encode(packet)  # raises what is wrong with it
            else:
                check_packet(packet, self.endpoint.config.max_payload)
            self._kept.append(packet)

    def call_soon(self, function: Callable[..., object], *args: object) -> None:
        """Call a function with these arguments on the client's own thread: from any thread, and
        the one way to send from another. What it raises is logged."""
        self.endpoint.call_soon(function, *args)

    def close(self) -> Any:
        """Try no more, close the connection that there is, and wait until that is over, in the
        manner of the runtime. What was kept is dropped. Idempotent."""
        raise NotImplementedError

    def dial(self) -> None:
        """Connect, for the first time; for the adapter."""
        self._dialling = self._dial(self.endpoint, self._dialled)

    def begin_closing(self) -> None:
        """Try no more, and close the connection that there is; for the adapter, which waits."""
        self.is_closed = True
        self._kept.clear()
        if self._dialling is not None:
            self._dialling.cancel()
        if self.session is not None:
            self.session.close()

    def _dialled(self, result: Session[AnyPacket] | Exception) -> None:
        if isinstance(result, Exception):
            self.endpoint.connect_failed(result)
            self._try_again()

    def _admitted(self, session: Session[AnyPacket]) -> None:
        self._redial.connected(self._clock())
        self.session = session  # before its handler sends through this client

    def _opened(self, session: Session[AnyPacket]) -> None:
        if self.is_closed:  # meanwhile, or by the handler
            session.close()
        while self._kept and session.is_open:
            session.send(self._kept.popleft())

    def _finished(self) -> None:
        self.session = None
        self._try_again()

    def _try_again(self) -> None:
        if not self.is_closed:
            now = self._clock()
            self._dialling = self._call_at(now + self._redial.lost(now), self.dial)
        self._on_change()
