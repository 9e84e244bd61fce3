"""What every run is held to, whatever the application: what sessions tell their handlers, what they hold, and
when they end. A handler is watched by one that stands before it."""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from typing import Any
from zlib import crc32

from packetcore import CloseReason, Handler, Malformed, Message, Packet, Session
from packetcore_conformance.simulation._machine import StreamEnd
from packetcore_conformance.simulation._world import World

SLACK = 0.001
"""Seconds by which a deadline may be missed: what rounding takes, since a turn takes no time."""

SELDOM = 3600.0
"""Seconds after which a session without an idle timeout is looked at again."""


class Live:
    """What is known of a session that lives."""

    __slots__ = ("closing_at", "host", "is_plain", "opened_at", "session", "sock")

    def __init__(self, session: Session[Any], host: Hashable, now: float) -> None:
        self.session = session
        self.host = host
        self.opened_at = now
        self.closing_at: float | None = None  # when it was first seen closing
        self.sock: StreamEnd | None = None
        self.is_plain = False


class Watch:
    """Sees to it that promises are kept.

    Args:
        world: when, and who is told.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.is_tolerant = False
        """Whether handlers and programs may raise: it is told in the trace alone then."""
        self.live: dict[Session[Any], Live] = {}
        """The sessions that live."""
        self.reasons: dict[CloseReason, int] = {}
        """How many sessions ended why."""
        self._late: dict[Hashable, float] = {}

    def handler(self, handler: Handler[Any], host: Any) -> Handler[Any]:
        """A handler that tells of all that it hears and hands it on."""
        of_batches = type(handler).packets_received is not Handler.packets_received
        of_sent = type(handler).sent is not Handler.sent
        if of_batches:
            return WatchedAll(self, handler, host) if of_sent else WatchedBatches(self, handler, host)
        return WatchedSent(self, handler, host) if of_sent else Watched(self, handler, host)

    def failed(self, host: str, what: str) -> None:
        """Something raised."""
        if self.is_tolerant:
            self.world.tell(host, what.splitlines()[0])
        else:
            self.world.violate(f"{host}: {what}")

    def late(self, host: Hashable, until: float) -> None:
        """A host does nothing until then."""
        self._late[host] = max(until, self._late.get(host, -inf))

    def forget(self, host: Hashable) -> None:
        """The program of a host is gone, and nobody hears of its sessions any more."""
        for live in [*self.live.values()]:
            if live.host is host:
                del self.live[live.session]

    # What sessions do.

    def connected(self, session: Session[Any], host: Any) -> None:
        """A handler hears of a session."""
        if session in self.live:
            self.world.violate(f"{host.name}: {session} is connected twice")
        self.live[session] = Live(session, host, self.world.now)

    def carried(self, session: Session[Any], sock: StreamEnd, is_plain: bool) -> None:
        """A session is over a stream; plain if its bytes are those of the socket."""
        live = self.live.get(session)
        if live is not None:
            live.sock, live.is_plain = sock, is_plain
            self._look_again(live, self.world.now + self._patience(session))

    def heard(self, session: Session[Any], host: Any, what: str) -> None:
        """A handler hears of something else."""
        self.world.tell(f"{host.name} {session.id}", what)
        if session not in self.live:
            self.world.violate(f"{host.name}: {session} tells its handler of {what} while it is not connected")
        limit = session.endpoint.config.max_outstanding
        if limit is not None and session.is_open and session.outstanding > limit:
            self.world.violate(f"{host.name}: {session} holds {session.outstanding} bytes, max_outstanding={limit}")

    def disconnected(self, session: Session[Any], host: Any, reason: CloseReason) -> None:
        """A handler hears of the end of a session."""
        live = self.live.pop(session, None)
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        if live is None:
            self.world.violate(f"{host.name}: {session} is disconnected, and was not connected")
        elif live.sock is not None and live.is_plain:
            self._check_end(live, live.sock, reason, host.name)

    def _check_end(self, live: Live, sock: StreamEnd, reason: CloseReason, name: str) -> None:
        session, now = live.session, self.world.now
        limit = session.endpoint.config.idle_timeout
        if reason is CloseReason.IDLE_TIMEOUT and limit is not None:
            signs = [(sock.heard_at, "was heard of")]
            if not session.endpoint.config.interframe_delay:  # a paced session takes no pace for a sign of life
                signs.append((sock.took_at, "took more of what was sent to it"))
            for since, what in signs:
                if now < since + limit - SLACK:
                    text = f"{session} ends with IDLE_TIMEOUT after {limit} s"
                    self.world.violate(f"{name}: {text}, though its peer {what} {now - since:.6f} s ago")
        stats = session.stats
        if sock.bytes_read != stats.bytes_received + stats.bytes_discarded:
            self.world.violate(
                f"{name}: {session} read {sock.bytes_read} bytes, of which it received {stats.bytes_received} "
                f"and discarded {stats.bytes_discarded}"
            )

    # Deadlines.

    def _patience(self, session: Session[Any]) -> float:
        limit = session.endpoint.config.idle_timeout
        return SELDOM if limit is None else limit + SLACK

    def _look_again(self, live: Live, when: float) -> None:
        self.world.at(when, lambda: self._look(live))

    def _look(self, live: Live) -> None:
        session, sock = live.session, live.sock
        if self.live.get(session) is not live or sock is None:
            return
        now, config = self.world.now, session.endpoint.config
        late = self._late.get(live.host, -inf)
        if session.is_open:
            patience, since = self._patience(session), now
            if config.idle_timeout is not None and sock.reader is not None:
                since = max(sock.heard_at, sock.took_at, sock.read_since, live.opened_at, late)
                if since + patience <= now:
                    text = f"{session} is open {now - since:.6f} s after the last sign of life"
                    self.world.violate(f"{live.host}: {text}, idle_timeout={config.idle_timeout}")
        elif config.close_timeout is None:
            patience, since = SELDOM, now
        else:
            if live.closing_at is None:
                live.closing_at = now
            patience, since = 2 * config.close_timeout + SLACK, max(live.closing_at, late)
            if since + patience <= now:
                text = f"{session} is closing for {now - since:.6f} s"
                self.world.violate(f"{live.host}: {text}, close_timeout={config.close_timeout}")
        self._look_again(live, since + patience)


class Watched(Handler[Any]):
    """Tells a watch of all that it hears, and hands it on.

    Args:
        watch: which.
        handler: the application's.
        host: whose.
    """

    def __init__(self, watch: Watch, handler: Handler[Any], host: Any) -> None:
        self.watch = watch
        self.handler = handler
        self.host = host
        self.life = host.life
        """Which of the lives of its host's program it belongs to: none hears of anything in another."""

    def hears(self, session: Session[Any], what: str) -> bool:
        """Tell of something. Returns whether there is anybody to hear it."""
        if self.life != self.host.life:
            return False
        self.watch.heard(session, self.host, what)
        return True

    def connected(self, session: Session[Any]) -> None:
        if self.life == self.host.life:
            self.watch.connected(session, self.host)
            self.hears(session, f"connected {':'.join(map(str, session.peer[:2]))}")
            self.handler.connected(session)

    def packet_received(self, session: Session[Any], packet: Any) -> None:
        if self.hears(session, describe(packet)):
            self.handler.packet_received(session, packet)

    def message_received(self, session: Session[Any], message: Message) -> None:
        if self.hears(session, f"message {describe(message)}"):
            self.handler.message_received(session, message)

    def malformed(self, session: Session[Any], malformed: Malformed) -> None:
        if self.hears(session, f"malformed {malformed.reason.name} {malformed.size}"):
            self.handler.malformed(session, malformed)

    def writable(self, session: Session[Any]) -> None:
        if self.hears(session, "writable"):
            self.handler.writable(session)

    def eof_received(self, session: Session[Any]) -> None:
        if self.hears(session, "eof"):
            self.handler.eof_received(session)

    def error_received(self, session: Session[Any], error: OSError) -> None:
        if self.hears(session, f"error {type(error).__name__}"):
            self.handler.error_received(session, error)

    def draining(self, session: Session[Any]) -> None:
        if self.hears(session, "draining"):
            self.handler.draining(session)

    def disconnected(self, session: Session[Any], reason: CloseReason) -> None:
        if self.hears(session, f"disconnected {reason.name}"):
            self.watch.disconnected(session, self.host, reason)
            self.handler.disconnected(session, reason)


class WatchedBatches(Watched):
    """The same of a handler that takes packets in batches."""

    def packets_received(self, session: Session[Any], packets: list[Any]) -> None:
        if all(self.hears(session, describe(packet)) for packet in packets):
            self.handler.packets_received(session, packets)


class WatchedSent(Watched):
    """The same of a handler that hears what the system has taken."""

    def sent(self, session: Session[Any], nbytes: int) -> None:
        if self.hears(session, f"sent {nbytes}"):
            self.handler.sent(session, nbytes)


class WatchedAll(WatchedBatches, WatchedSent):
    """The same of one that does both."""


def describe(item: Any) -> str:
    """A packet as the trace has it: the same on every machine."""
    if isinstance(item, Packet):
        return f"packet {item.id}/{item.type}/{item.count} {len(item.payload)}:{crc32(item.payload):08x}"
    if isinstance(item, bytes):
        return f"frame {len(item)}:{crc32(item):08x}"
    payload = getattr(item, "payload", None)
    return f"{type(item).__name__} {crc32(payload):08x}" if isinstance(payload, bytes) else type(item).__name__
