"""What the sessions of one server or client share: handler, limits, register and counters."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from packetcore._codec import Codec
from packetcore._config import Config
from packetcore._handler import Handler
from packetcore._pool import SessionPool
from packetcore._reasons import CloseReason
from packetcore._stats import EndpointStats

if TYPE_CHECKING:
    from packetcore._session import Session

log_exception: Callable[[str], object] = logging.getLogger("packetcore").exception
"""What is told of a handler that raised, unless an adapter has a logger of its own."""


class _NoHandler(Handler):
    def connected(self, session: Session) -> None:
        session.abort(CloseReason.HANDLER_ERROR)


class Endpoint:
    """One server, or one client, over streams; `DatagramEndpoint` is one over UDP. An adapter
    makes one and gives it to each `Session`; it opens sockets, this does the rest.

    Args:
        handler: the handler of all sessions, or a function that makes one for each.
        config: limits and timeouts.
        is_server: whether the peers came to us. A server stops reading from a peer that
            does not read; a client reads on, since its server may do the same.
        log_exception: called with a message while an exception is handled; the
            adapter's own logger, `logging` by default.
    """

    def __init__(
        self,
        handler: Handler | Callable[[], Handler],
        config: Config | None = None,
        *,
        is_server: bool = False,
        log_exception: Callable[[str], object] = log_exception,
    ) -> None:
        self.config = Config() if config is None else config
        """Limits and timeouts."""
        # A handler may still reply to what came before a malformed frame, so that the
        # session applies `on_malformed` itself, when it has delivered that.
        self.connection_config = replace(self.config, on_malformed="skip")
        self.sessions: SessionPool[Session] = SessionPool(
            self.config.idle_timeout,
            max_sessions=self.config.max_sessions,
            max_per_host=self.config.max_sessions_per_host,
        )
        """The sessions that live, by id and by identity."""
        self.stats = EndpointStats()
        """What was opened, refused and closed: counters to read."""
        self.codec: Codec | None = None
        """Another framing in place of this format."""
        self.draining = False
        """Whether it takes no new sessions."""
        self.is_server = is_server
        """Whether the peers came to us."""
        self.log_exception = log_exception
        self._handler = handler
        self._on_empty: list[Callable[[], object]] = []

    def new_handler(self) -> Handler:
        """The handler of one more session. Where the function that makes it raises, that
        session ends with HANDLER_ERROR and no other notices."""
        if isinstance(self._handler, Handler):
            return self._handler
        try:
            return self._handler()
        except Exception:
            self.log_exception("making the handler of a session raised")
            return _NoHandler()

    def connect_timed_out(self, host: str, port: int) -> TimeoutError:
        """What to raise for a server that was not reached within `connect_timeout`."""
        limit = self.config.connect_timeout
        return TimeoutError(f"connecting to {host} port {port} took longer than connect_timeout={limit} s")

    def drain(self, now: float, on_empty: Callable[[], object]) -> None:
        """Shut down in good order: admit nobody, and let each handler finish its session.

        Args:
            now: the time, in seconds.
            on_empty: called once no session is left, which may be at once. Until then
                keep the sockets running; when patience is over, call `abort`.
        """
        self.draining = True
        self._on_empty.append(on_empty)
        for session in self.sessions:
            session.drain(now)
        self._check_empty()

    def abort(self, now: float) -> None:
        """End every session that is left, now, with SHUTDOWN."""
        self.draining = True
        for session in self.sessions:
            session.abort(CloseReason.SHUTDOWN)
            session.flush(now)

    def finished(self, session: Session, reason: CloseReason) -> None:
        """A session is over and has left the pool; it says so itself."""
        self.stats.closed[reason] += 1
        self._check_empty()

    def _check_empty(self) -> None:
        while self._on_empty and not self.sessions:
            self._on_empty.pop()()
