"""What the sessions of one server or client share: handler, limits, register and counters."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Generic

from packetcore._carrier import Address
from packetcore._codec import Codec
from packetcore._config import Config
from packetcore._errors import LocalProtocolError, SessionClosed
from packetcore._events import Malformed
from packetcore._frames import FrameCodec, PacketCodec
from packetcore._handler import Handler
from packetcore._paced import PacedSession
from packetcore._packet import AnyPacket, Packet
from packetcore._pool import SessionPool
from packetcore._reasons import CloseReason, Refusal
from packetcore._session import Session
from packetcore._stats import EndpointStats, Stats
from packetcore.framings import Framing

logger = logging.getLogger("packetcore")
"""Where sessions come and go at level INFO, each record with `session`, `peer` and `identity`.
Of a peer that was refused `session` is 0. A server tells of a session at its first byte; one that
never sent any and went by itself, as a load balancer's probe does, is one record at level DEBUG."""

log_exception: Callable[[str], object] = logger.exception
"""What is told of a handler that raised, unless an adapter has a logger of its own."""


_OF_A_PROBE = frozenset({CloseReason.PEER, CloseReason.RESET})
"""How the session of one ends that connects to see whether somebody is there."""

_INHERITED = (Handler.packets_received, Handler.sent)
"""What a session does not call where nobody overrides it: each costs a call for a chunk or a write."""


class _NoHandler(Handler[Any]):
    def connected(self, session: Session[Any]) -> None:
        session.abort(CloseReason.HANDLER_ERROR)


class Endpoint(Generic[AnyPacket]):
    """One server, or one client, over streams; `DatagramEndpoint` is one over UDP. An adapter
    makes one and gives it to each `Session`; it opens sockets, this does the rest.

    Args:
        handler: the handler of all sessions, or a function that makes one for each.
        config: limits and timeouts.
        is_server: whether the peers came to us. A server stops reading from a peer that
            does not read; a client reads on, since its server may do the same.
        framing: another framing than the default: where frames begin and end, one of
            `packetcore.framings` or another.
        codec: what stands in its frames; `None` for frames of bytes.
        sessions: the register to use, where several endpoints share one, of TCP and UDP for
            instance; its own by default. A shared one has caps and a timeout of its own.
        log_exception: called with a message while an exception is handled; the
            adapter's own logger, `logging` by default.

    Raises:
        TypeError: there is a `codec` without a `framing`, or `keepalive_packet` is no packet of theirs.
        ValueError: `config` joins messages, which are of the default framing alone, or
            `keepalive_packet` cannot be sent.
    """

    def __init__(
        self,
        handler: Handler[AnyPacket] | Callable[[], Handler[AnyPacket]],
        config: Config | None = None,
        *,
        is_server: bool = False,
        framing: Framing | None = None,
        codec: PacketCodec[AnyPacket] | None = None,
        sessions: SessionPool[Session[AnyPacket]] | None = None,
        log_exception: Callable[[str], object] = log_exception,
    ) -> None:
        self.config = Config() if config is None else config
        """Limits and timeouts."""
        # A handler may still reply to what came before a malformed frame, so that the
        # session applies `on_malformed` itself, when it has delivered that.
        self.connection_config = replace(self.config, on_malformed="skip")
        if sessions is None:
            sessions = SessionPool(
                self.config.idle_timeout,
                max_sessions=self.config.max_sessions,
                max_per_host=self.config.max_sessions_per_host,
            )
        self.sessions = sessions
        """The sessions that live, by id and by identity; a shared register has others' too."""
        self.on_admitted: Callable[[Session[AnyPacket]], object] | None = None
        """Called with each session before its handler hears of it."""
        self.on_opened: Callable[[Session[AnyPacket]], object] | None = None
        """Called with each session once its handler has heard of it."""
        self.on_finished: Callable[[Session[AnyPacket]], object] | None = None
        """Called with each session that is over."""
        self.on_malformed: Callable[[Malformed, Address, Session[AnyPacket] | None], object] | None = None
        """Called with what is malformed before a handler hears of it, whose it is, and the session; `None` for
        a stranger's (UDP), of which no handler hears."""
        self._stats = EndpointStats()
        self.codec: Codec[AnyPacket] | None = None
        """Another framing in place of this format."""
        self.is_framed = framing is not None
        """Whether that is so: packets may be of any type."""
        self.ends_on_malformed = framing is not None and not framing.resynchronises
        """Whether a session ends with the first bytes that are no frame: the framing cannot find the
        next one."""
        self.session_type: type[Session[AnyPacket]] = PacedSession if self.config.interframe_delay else Session
        """What an adapter makes the session of a stream by."""
        self.draining = False
        """Whether it is shutting down."""
        self.admits = True
        """Whether it takes new sessions. One that begins while it drains is drained at once."""
        self.is_server = is_server
        """Whether the peers came to us."""
        self.log_exception = log_exception
        self.runtime: Any = None
        """What its sessions live on, where an adapter has said so: an object of that adapter's."""
        self.is_tied_to_thread = False
        """Whether a session may be used on the thread alone on which it began."""
        self.on_ended: Callable[[BaseException], object] | None = None
        """Called when a handler has raised `SystemExit` or `KeyboardInterrupt`, with that, once no
        session is left: stop listening, and raise it where the program waits. Where it is `None`
        the session's input raises it."""
        self._call_soon: Callable[[Callable[[], object]], object] | None = None
        self._handler = handler
        self._speak(framing, codec)
        self._on_empty: list[Callable[[], object]] = []

    def _speak(self, framing: Framing | None, codec: PacketCodec[AnyPacket] | None) -> None:
        keepalive = self.config.keepalive_packet
        if framing is None:
            if codec is not None:
                raise TypeError(f"codec={codec!r} is for what stands in the frames of a framing: give one")
            if keepalive is not None and not isinstance(keepalive, Packet):
                raise TypeError(f"keepalive_packet={keepalive!r} is no Packet: give the framing whose packet it is")
            return
        if self.config.join_messages:
            raise ValueError(f"join_messages=True is for the default framing, not for {framing!r}")
        self.codec = spoken = FrameCodec(framing, codec, self.config.max_payload, self.log_exception)
        if keepalive is not None:
            self._check_keepalive(spoken, keepalive)

    def _check_keepalive(self, codec: Codec[AnyPacket], keepalive: Any) -> None:
        try:
            codec.encode(keepalive)
        except TypeError as error:
            raise TypeError(f"keepalive_packet={keepalive!r}: {error}") from None
        except (ValueError, LocalProtocolError) as error:
            raise ValueError(f"keepalive_packet: {error}") from None

    def new_handler(self) -> Handler[AnyPacket]:
        """The handler of one more session. Where the function that makes it raises, that
        session ends with HANDLER_ERROR and no other notices."""
        if isinstance(self._handler, Handler):
            return self._handler
        try:
            return self._handler()
        except Exception:
            self.log_exception("making the handler of a session raised")
            return _NoHandler()

    def overrides(self, method: Callable[..., object]) -> bool:
        """Whether a handler's `packets_received` or `sent` is the application's own."""
        return getattr(method, "__func__", None) not in _INHERITED

    @property
    def stats(self) -> EndpointStats:
        """What it has seen until now. Costs time in proportion to the sessions that are open."""
        stats = self.past
        for session in self.own_sessions():
            session.add_to(stats.total)
            stats.outstanding += session.outstanding
        return stats

    @property
    def past(self) -> EndpointStats:
        """The same without what the sessions that are open have counted: `total` is of those that are over, and
        `outstanding` 0. Costs the same however many are open."""
        counted = self._stats
        total = Stats()
        total.add(counted.total)
        return replace(
            counted,
            total=total,
            refusals=counted.refusals.copy(),
            silent=counted.silent.copy(),
            closed=counted.closed.copy(),
        )

    @property
    def is_empty(self) -> bool:
        """Whether none of its sessions is open, or has yet to tell its handler of its end."""
        return not self._stats.sessions

    def own_sessions(self) -> list[Session[AnyPacket]]:
        """Those of its sessions that are open, the longest silent first."""
        return [session for session in self.sessions if session.endpoint is self]

    def runs_by(self, call_soon: Callable[[Callable[[], object]], object], *, any_thread: bool = False) -> None:
        """Say how to run something on the runtime's thread; for the adapter.

        Args:
            call_soon: calls a function there, soon, but not before it returns: from any thread.
            any_thread: whether sessions may be used on every thread; else what an application
                calls on another than the session's raises `WrongThread`.
        """
        self._call_soon = call_soon
        self.is_tied_to_thread = not any_thread

    def call_soon(self, function: Callable[..., object], *args: object) -> None:
        """Call a function with these arguments on the runtime's thread: from any thread. What it
        raises is logged.

        Raises:
            LocalProtocolError: the runtime has not told how, see `runs_by`.
        """
        if self._call_soon is None:
            raise LocalProtocolError("call_soon: the runtime has not told how to reach its thread")
        self._call_soon(partial(self._run, function, args))

    def _run(self, function: Callable[..., object], args: tuple[object, ...]) -> None:
        try:
            function(*args)
        except SessionClosed:
            pass  # the peer has just gone: nobody's mistake
        except Exception:
            self.log_exception(f"{function!r}, given to call_soon, raised")

    def connect_timed_out(self, host: str, port: int) -> TimeoutError:
        """What to raise for a server that was not reached within `connect_timeout`."""
        limit = self.config.connect_timeout
        return TimeoutError(f"connecting to {host} port {port} took longer than connect_timeout={limit} s")

    def drain(self, now: float, on_empty: Callable[[], object], *, admit_late: bool = False) -> None:
        """Shut down in good order: admit nobody, and let each handler finish its session.

        Args:
            now: the time, in seconds.
            on_empty: called once no session is left, which may be at once. Until then
                keep the sockets running; when patience is over, call `abort`.
            admit_late: admit who had come before and has no session yet, as during a TLS handshake. Then
                `on_empty` is called each time that no session is left.
        """
        self.draining = True
        self.admits = admit_late
        self._on_empty.append(on_empty)
        for session in self.own_sessions():
            session.drain(now)
        self._check_empty()

    def end(self, error: KeyboardInterrupt | SystemExit, now: float) -> None:
        """A handler wants the program to end: end every session, and have the error come out
        where the program waits."""
        self.abort(now)
        if self.on_ended is None:
            raise error
        self.on_ended(error)

    def abort(self, now: float) -> None:
        """End every session that is left, now, with SHUTDOWN, and admit nobody."""
        self.draining = True
        self.admits = False
        for session in self.own_sessions():
            session.abort(CloseReason.SHUTDOWN)
            session.flush(now)

    def admitted(self, session: Session[AnyPacket]) -> None:
        """A session has entered the pool and its handler will hear of it; it says so itself."""
        self._stats.opened += 1
        self._stats.sessions += 1
        if not self.is_server:
            self._log_opened(session)
        if self.on_admitted is not None:
            self.on_admitted(session)

    def heard(self, session: Session[AnyPacket]) -> None:
        """The first bytes of a session have come."""
        if self.is_server:
            self._log_opened(session)

    def opened(self, session: Session[AnyPacket]) -> None:
        """The handler of a session has heard of it."""
        if self.on_opened is not None:
            self.on_opened(session)

    def refused(self, peer: Address, refusal: Refusal, why: object = None) -> None:
        """A peer was turned away; an adapter says so of one that failed to speak TLS.

        Args:
            peer: its address.
            refusal: what for.
            why: what was wrong with it in particular, for the log.
        """
        self._stats.refusals[refusal] += 1
        about = {"session": 0, "peer": peer, "identity": None}
        what = refusal.value if why is None else f"{refusal.value}: {why}"
        logger.info("a session with %s was refused: %s", peer, what, extra=about)

    def malformed(self, malformed: Malformed, peer: Address, session: Session[AnyPacket] | None = None) -> None:
        """Something malformed came of a session, or of a stranger."""
        if self.on_malformed is not None:
            self.on_malformed(malformed, peer, session)

    def left(self, session: Session[AnyPacket]) -> None:
        """A session is over: take it from the pool, and keep what it has counted."""
        self.sessions.remove(session.id)
        session.add_to(self._stats.total)

    def finished(self, session: Session[AnyPacket], reason: CloseReason) -> None:
        """The handler of a session has heard that it is over; it says so itself."""
        self._stats.closed[reason] += 1
        self._stats.sessions -= 1
        if session.bytes_received or not self.is_server:
            _log_event(logging.INFO, session, "session %d with %s closed: %s", reason)
        else:
            level = logging.DEBUG if reason in _OF_A_PROBE else logging.INFO
            _log_event(level, session, "session %d with %s closed without a byte from it: %s", reason)
        if not session.bytes_received:
            self._stats.silent[reason] += 1
        if self.on_finished is not None:
            self.on_finished(session)
        self._check_empty()

    def connect_failed(self, error: BaseException) -> None:
        """A client's try to connect came to nothing."""
        self._stats.closed[CloseReason.CONNECT_FAILED] += 1
        logger.info("connecting failed: %s", error, extra={"session": 0, "peer": None, "identity": None})

    def _log_opened(self, session: Session[AnyPacket]) -> None:
        _log_event(logging.INFO, session, "session %d with %s opened")

    def _check_empty(self) -> None:
        if not self.is_empty:
            return
        told = self._on_empty
        if not self.admits:
            self._on_empty = []
        for on_empty in [*told]:
            on_empty()


def _log_event(level: int, session: Session[Any], message: str, reason: CloseReason | None = None) -> None:
    if logger.isEnabledFor(level):
        values = () if reason is None else (reason.name,)
        about = {"session": session.id, "peer": session.peer, "identity": session.identity}
        logger.log(level, message, session.id, session.peer, *values, extra=about)
