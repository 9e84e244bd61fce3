"""One live conversation, and the only place where its pump stands.

A `Session` joins a `Connection`, a `Handler` and an entry in the pool. The adapter tells
it what happened to a socket (the inputs); the session delivers events to the handler and
drives the adapter's `Host`. Admission, refresh, expiry, close reasons, backpressure and
the order of all of it are decided here, so that no adapter has to.

After every input the pump runs: deliver, write once, re-arm the timer, close. It is not
entered twice: an input that arrives while it runs, from a handler or from a verb of the
host, leaves its work for the run under way.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Hashable
from dataclasses import replace
from sys import maxsize
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, TypeAlias, overload

from packetcore._carrier import Address, Carrier, ProxiedAddress
from packetcore._connection import Connection, earlier
from packetcore._errors import LocalProtocolError, PoolFull, SessionClosed, WrongThread
from packetcore._events import OTHERS, Closed, EndOfStream, Event, Malformed, Message
from packetcore._host import Host
from packetcore._implementation import Pump
from packetcore._owner import get_ident
from packetcore._packet import AnyPacket, Packet
from packetcore._parent import Parent
from packetcore._reasons import CloseReason, Refusal
from packetcore._requests import Reply, Request, Requests
from packetcore._state import State
from packetcore._stats import Stats
from packetcore._tapped import TappedHost
from packetcore._turns import Turns

P = ParamSpec("P")

SessionEndpoint: TypeAlias = "Parent[Session[AnyPacket], AnyPacket]"
"""The `Endpoint` that a session belongs to, as far as the session knows it."""

_NEVER = float("inf")

_REFRESH = 0.1
"""Seconds for which a busy session keeps its place in the pool's order: idle timeouts, which are
the session's own, are exact."""

# Looking a member up in its enum takes longer than all else that a check costs.
_OPEN, _HALF_CLOSED = State.OPEN, State.HALF_CLOSED
_SENDING = (_OPEN, _HALF_CLOSED)

_ABORTED = frozenset({CloseReason.RESET, CloseReason.SLOW_CONSUMER, CloseReason.REFUSED})
"""Ends that leave nobody to flush for."""


class _HangUp(enum.Enum):
    """What the host was told to do with its socket."""

    NOT_YET = enum.auto()
    CLOSE = enum.auto()
    ABORT = enum.auto()


_NOT_YET = _HangUp.NOT_YET


class Session(Pump, Generic[AnyPacket]):
    """One conversation with one peer.

    For the application: `id`, `peer`, `send`, `send_message`, `close` and what follows
    them. Call these on the runtime's own thread, in a handler or outside one; on another they
    raise `WrongThread`, and `call_soon` is what brings a call there. (On blocking sockets any
    thread will do.)

    For an adapter: the inputs `opened`, `received`, `eof`, `sent_bytes`, `lost`, `tick`
    and `flush`, each with the time in seconds. Inputs after `lost` do nothing.

    Args:
        endpoint: the server or client that it belongs to.
        host: the socket's verbs.
        peer: the socket's other end.
        now: the time, in seconds since any epoch.
    """

    __slots__ = (
        "__weakref__",
        "_abort_at",
        "_aborting",
        "_carrier",
        "_draining",
        "_endpoint",
        "_eof_written",
        "_finished",
        "_handler",
        "_hang_up_told",
        "_max_outstanding",
        "_reading",
        "_reading_told",
        "_reason",
        "_requests",
        "_timer_at",
        "id",
        "identity",
        "peer",
    )

    _connection: Connection[AnyPacket]

    def __init__(self, endpoint: SessionEndpoint[AnyPacket], host: Host, peer: Address, now: float) -> None:
        handler = endpoint.new_handler()
        self.id = 0
        """Counts up from 1 within a server and is never given twice; 0 before admission."""
        self.peer = peer
        """The peer's address as the socket gives it; behind a proxy that tells it, the device's own."""
        self.identity: Hashable = None
        """What it was bound to last; `None` if nothing."""
        self._endpoint = endpoint
        self._tap = tap = endpoint.config.tap
        self._host = host if tap is None else TappedHost(host, self._tell_sent, self._tell_eof_sent)
        self._thread = get_ident() if endpoint.is_tied_to_thread else 0
        self._carrier: Carrier | None = None
        self._handler = handler
        self._on_packet = handler.packet_received
        self._on_packets = handler.packets_received if endpoint.overrides(handler.packets_received) else None
        self._on_sent = handler.sent if endpoint.overrides(handler.sent) else None
        self._connection = Connection(endpoint.connection_config, now=now, codec=endpoint.codec)
        self._output = self._connection.output
        limit = endpoint.config.max_outstanding
        self._max_outstanding = maxsize if limit is None else limit
        self._is_framed = endpoint.is_framed
        self._queue = []  # an empty deque holds 600 bytes more
        self._now = now
        self._refresh_at = -_NEVER  # the first chunk is noted
        self._unsent = 0
        self._timer_at = _NEVER
        self._must_arm = True  # what comes and goes between frames only puts a deadline off
        self._abort_at = _NEVER  # when patience with a closing socket is over
        self._hang_up_told = _HangUp.NOT_YET
        self._reason: CloseReason | None = None
        self._requests: Requests | None = None
        self._paused = self._write_paused = False
        self._set_room()
        self._reading = self._reading_told = True
        self._draining = False
        self._aborting = False
        self._eof_written = False
        self._running = False
        self._woken = False
        self._lost = False
        self._finished = False

    def __repr__(self) -> str:
        return f"<Session {self.id} {self.peer} {self._connection.state.name}>"

    # What an application uses.

    @property
    def is_open(self) -> bool:
        """Whether `send` is possible."""
        return self.id != 0 and self._connection.state in _SENDING

    @property
    def carrier(self) -> Carrier:
        """What carries the conversation: this side's address, and over TLS the peer's certificate
        and what was agreed on. What was not asked for while the socket was there may be missing
        later."""
        if self._carrier is None:
            carrier, peer = self._host.carrier(), self.peer
            self._carrier = replace(carrier, proxy=peer.proxy) if isinstance(peer, ProxiedAddress) else carrier
        return self._carrier

    @property
    def is_over(self) -> bool:
        """Whether the socket is gone and the handler was told."""
        return self._finished

    @property
    def endpoint(self) -> SessionEndpoint[AnyPacket]:
        """The server or client that it belongs to."""
        return self._endpoint

    @property
    def close_reason(self) -> CloseReason | None:
        """Why it ended; `None` while it has not."""
        return self._reason

    @property
    def outstanding(self) -> int:
        """Bytes sent that the operating system has not taken yet."""
        return self._output.size + self._unsent

    @property
    def bytes_sent(self) -> int:
        """Bytes sent until now, those that wait included."""
        return self._output.bytes

    @property
    def bytes_gone(self) -> int:
        """Bytes sent that the operating system has taken; over UDP those it refused, too."""
        return self._output.taken - self._unsent

    @property
    def has_room(self) -> bool:
        """Whether a sender need not wait: no more than `write_high_water` bytes are unsent, or
        than `write_low_water` where it was more."""
        return self._output.size <= self._ease

    @property
    def write_paused(self) -> bool:
        """Whether `outstanding` has passed `write_high_water` and not come down to
        `write_low_water` since: better send nothing before `Handler.writable`."""
        return self._write_paused

    @property
    def stats(self) -> Stats:
        """What has passed through until now: a copy of the counters."""
        stats = Stats()
        self.add_to(stats)
        return stats

    def add_to(self, total: Stats) -> None:
        """Add what has passed through until now to what others have counted."""
        self._connection.add_to(total)
        if self._requests is not None:
            total.late_replies += self._requests.late

    @property
    def bytes_received(self) -> int:
        """Bytes that came until now and were not discarded."""
        return self._connection._bytes_received

    @property
    def unanswered(self) -> int:
        """How many requests had no reply: those that wait, and those given up, whose replies
        may come yet."""
        return 0 if self._requests is None else self._requests.unanswered

    def bind(self, identity: Hashable, takeover: Literal["replace", "reject"] = "replace") -> None:
        """Let this session hold an identity, so that `sessions.find(identity)` finds it.

        Args:
            identity: a device's name or number; any hashable but `None`.
            takeover: where another session holds it, "replace" closes that one with
                REPLACED and "reject" raises.

        Raises:
            IdentityTaken: another session holds it and `takeover` is "reject".
            SessionClosed: this session is closing or closed.
        """
        self._check_thread()
        if not self.is_open:
            raise SessionClosed(self._reason)
        displaced = self._endpoint.sessions.bind(self.id, identity, takeover)
        self.identity = identity
        if displaced is not None:
            displaced._close(CloseReason.REPLACED)

    if TYPE_CHECKING:  # the pump, which may be the one in C, has no type for its packets

        @overload
        def send(self, packet: AnyPacket, /) -> bool: ...
        @overload
        def send(self: Session, packet: Packet | Message, /) -> bool: ...
        def send(self, packet: Any, /) -> bool:
            """See `Pump`."""

    def send_message(
        self: Session, payload: bytes | bytearray | memoryview, *, id: int, type: int = 0, chunk: int | None = None
    ) -> None:
        """Send a payload as one packet or several, as `Connection.send_message` does."""
        self._check_thread()
        if self._endpoint.is_framed:
            raise LocalProtocolError("send_message: messages of several packets are of the default framing alone")
        self._connection.send_message(payload, id=id, type=type, chunk=chunk)
        if self._output.size > self._room:
            self._overflow()
        self._wake()

    @overload
    def request(
        self: Session,
        packet: Packet | bytes | bytearray | memoryview,
        done: Callable[[Reply | Exception], object],
        *,
        type: int | None = None,
        match: Callable[[Reply], bool] | None = None,
        timeout: float | None = None,
        wait: bool = False,
    ) -> Request: ...
    @overload
    def request(
        self,
        packet: AnyPacket,
        done: Callable[[AnyPacket | Exception], object],
        *,
        match: Callable[[AnyPacket], bool],
        timeout: float | None = None,
    ) -> Request: ...
    def request(
        self,
        packet: Any,
        done: Callable[[Any], object],
        *,
        type: int | None = None,
        match: Callable[[Any], bool] | None = None,
        timeout: float | None = None,
        wait: bool = False,
    ) -> Request:
        """Send a packet and wait for its reply: the next packet, or message, of the same id. It
        does not go to the handler. Nor does the late reply of a request that was given up,
        whose id is held for it (see `Config.request_hold`).

        Args:
            packet: what to ask, or its payload alone: then an id is picked that no request has.
            done: called once, with the reply; with a `TimeoutError`; with `SessionClosed`; or,
                where it had to wait, with what the send raised.
            type: of a packet made of a payload; 0 if not given.
            match: which packet is the reply, in place of the id; asked for each that comes. Such
                a request takes no id and holds none: a late reply goes to the handler, or to
                the request that has its id.
            timeout: how long to wait, in seconds; `None` for as long as the session lives. With
                `Config.max_requests_in_flight` it counts from when the request is sent.
            wait: whether to send it once its id is free, in the order of asking, rather than
                raise `RequestPending`. The `timeout` counts from now all the same.

        Returns:
            What `forget` takes.

        Raises:
            RequestPending: the id is in flight or held; of a payload, all ids are.
            SessionClosed: the session is closing or closed, or the peer has finished sending.
            LocalProtocolError: the payload exceeds `max_payload`.
        """
        self._check_thread()
        if self._connection.state is _HALF_CLOSED:
            raise SessionClosed(CloseReason.PEER)  # who would reply?
        self._connection.check_sending()
        if self._endpoint.is_framed and match is None:
            raise TypeError("match=None: packets of another framing have no id to know a reply by")
        if self._requests is None:
            self._requests = self._new_requests()
            self._on_packet = self._packet_or_reply
            if self._on_packets is not None:
                self._on_packets = self._packets_or_replies
        self._must_arm = True
        now = self._now if self._running else None  # outside an input it is not known before the flush
        if match is not None and self._endpoint.is_framed:
            request = self._requests.ask_by(match, packet, done, timeout, now)
        else:
            request = self._requests.ask(packet, match, done, timeout, now, type=type, wait=wait)
        self._wake()  # for the time of one that was not sent yet
        return request

    def _new_requests(self) -> Requests:
        config = self._endpoint.config
        if config.max_requests_in_flight is None:
            return Requests(self.send, config.request_hold)

        def clock() -> float | None:
            self._must_arm = True
            return self._now if self._running else None

        return Turns(self.send, config.request_hold, config.max_requests_in_flight, config.turnaround_delay, clock)

    def forget(self, request: Request) -> None:
        """Wait no longer for a reply; one that comes yet is dropped, like any that is late. Does
        nothing if `done` was called already."""
        self._check_thread()
        if self._requests is not None and self._requests.forget(request, self._now if self._running else None):
            self._must_arm = True
            self._wake()  # for the time of the hold

    def close(self, reason: CloseReason | None = None) -> None:
        """Close once all that was sent has gone and the peer has closed too, at the latest
        after `close_timeout`. What the peer still sends is dropped. Idempotent.

        Args:
            reason: what its handler is told; LOCAL by default, or SHUTDOWN where the server shuts
                down. A register that spans machines says REPLACED.
        """
        self._check_thread()
        if reason is None:
            reason = CloseReason.SHUTDOWN if self._draining else CloseReason.LOCAL
        self._close(reason)

    def abort(self, reason: CloseReason = CloseReason.LOCAL) -> None:
        """Close at once; what is unsent is lost. Idempotent."""
        self._check_thread()
        if self._lost:
            return
        self._aborting = True
        self._discard_queue()
        self._take(self._connection.fail(reason, self._now))
        self._wake()

    def pause(self) -> None:
        """Deliver nothing and read nothing until `resume`; the peer's timeouts stand still."""
        self._check_thread()
        self._paused = True
        self._update_reading()
        self._wake()  # so that the time it lasts is known

    def resume(self) -> None:
        """Deliver and read again."""
        self._check_thread()
        self._paused = False
        self._update_reading()
        self._wake()

    def call_soon(self, function: Callable[..., object], *args: object) -> None:
        """Call a function with these arguments on the session's own thread: from any thread, and
        the one way to send from another. What it raises is logged.

        Raises:
            LocalProtocolError: the runtime has not told how.
        """
        self._endpoint.call_soon(function, *args)

    # What an adapter calls.

    def opened(self, now: float) -> None:
        """The socket is connected: admit the peer, or turn it away with REFUSED."""
        self._now = now
        endpoint = self._endpoint
        try:
            if not endpoint.admits:
                raise PoolFull(Refusal.SHUTDOWN.value, Refusal.SHUTDOWN)
            self.id = endpoint.sessions.add(self, now, host=self.peer[0] or None)
        except PoolFull as full:
            if self._tap is not None:
                self._tell("opened")
            endpoint.refused(self.peer, full.refusal or Refusal.MAX_SESSIONS)
            self.abort(CloseReason.REFUSED)
        else:
            if self._tap is not None:
                self._tell("opened")
            endpoint.admitted(self)
            self._call(self._handler.connected)
            endpoint.opened(self)
            if endpoint.draining:
                self.drain(now)
        self._pump()

    def eof(self, now: float, *, truncated: bool = False) -> None:
        """The peer has finished sending.

        Args:
            now: the time, in seconds.
            truncated: whether it did so without the word that the carrier demands, a
                `close_notify` over TLS: unless this side had closed, the session then ends with
                RESET.
        """
        if self._tap is not None and not self._lost:
            self._tell("eof")
        if self._connection.state in (State.OPEN, State.CLOSING):
            self._now = now
            self._take(self._connection.receive_eof(now, truncated=truncated))
            self._pump()

    def sent_bytes(self, n: int, now: float) -> None:
        """The operating system took `n` more bytes of what was written, after the write: so the
        peer takes what has piled up, and is not silent."""
        if self._lost:
            return
        self._connection.touch(now)
        self._count_sent(n, now)

    def touch(self, now: float) -> None:
        """The peer has given a sign of life that is no byte of the stream, as the answer to a ping."""
        if not self._lost:
            self._connection.touch(now)

    def _count_sent(self, n: int, now: float) -> None:
        self._now = now
        self._unsent -= n
        self._set_room()
        if self._write_paused or self._connection.state is _HALF_CLOSED:
            self._connection.touch(now)  # the peer is not silent: it reads
        if self._on_sent is not None and self.id:
            self._call(self._on_sent, n)
        self._relieve()
        if not self._running:
            self._pump()

    def _relieve(self) -> None:
        """Let who waits for room go on, where enough has gone."""
        if self._write_paused and self.outstanding <= self._endpoint.config.write_low_water:
            self._write_paused = False
            self._set_room()
            self._update_reading()
            if self.is_open:
                self._call(self._handler.writable)

    def lost(self, error: BaseException | None, now: float) -> None:
        """The socket is gone: after `close` or `abort`, or with the `error` that broke it."""
        if self._lost:
            return
        if self._tap is not None:
            self._tell("lost", error)
        self._now = now
        self._lost = True
        self._take(self._connection.fail(CloseReason.PEER if error is None else CloseReason.RESET, now))
        self._pump()

    def tick(self, now: float) -> None:
        """The timer fired."""
        self._now = now
        self._timer_at = _NEVER
        self._must_arm = True
        if self._requests is not None:
            self._call(_expire, self._requests, now)
        if self._unsent and not (self._lost or self._eof_written):
            # Before the peer is called silent: the system may have had room for a while. And
            # a keepalive would only wait behind what waits.
            gone = self.bytes_gone
            self._write()
            if self.bytes_gone > gone:
                self._connection.touch(now)
            self._connection.sent_at = now
        if self._hang_up_told is _HangUp.NOT_YET:
            refreshed = self._endpoint.sessions.refreshed(self.id)
            if self._paused or (self._reading and not self._reading_told):
                refreshed = now  # it is not the peer who is silent, or was until just now
            if refreshed is not None:
                self._connection.touch(refreshed)  # the application may vouch for its peer
            was_closing = self._connection.state is State.CLOSING
            self._take(self._connection.handle_deadline(now))
            self._aborting |= was_closing and self._connection.state is State.CLOSED
        elif self._abort_at <= now:
            self._aborting = True
        self._pump()

    def flush(self, now: float) -> None:
        """The host was woken: do what was asked for outside an input."""
        self._now = now
        self._woken = False
        if self._requests is not None:
            self._requests.begin(now)
            self._must_arm = True
        if self._connection.state is State.CLOSING and not self._eof_written:
            self._connection.close(now)  # the wait for the peer begins now
        self._pump()

    def congested(self, now: float) -> bool:
        """Whether a sender who can wait should, until `Handler.writable` or the end.

        Hands the socket what is unsent first, where that is more than `write_high_water`.
        """
        if not (self._write_paused or self.has_room):
            self.flush(now)
        return self._write_paused and self.is_open

    def failed(self, error: Exception | KeyboardInterrupt | SystemExit, now: float) -> None:
        """The application's function over a stream raised. Where it only ran into the end
        of the conversation the session closes, else it ends with HANDLER_ERROR, and where it
        wanted to end the program so does the whole endpoint. Call this while the exception is
        being handled: its traceback is logged."""
        self._now = now
        if _is_closed(error):
            self.close()
        else:
            self._handler_failed(error)
        self._pump()

    def drain(self, now: float) -> None:
        """The server is shutting down: tell the handler, once."""
        self._now = now
        if self.is_open and not self._draining:
            self._draining = True
            self._call(self._handler.draining)
            self._pump()

    # The pump.

    def _received_late(self, data: bytes | bytearray | memoryview, now: float) -> None:
        if self._connection.state is State.CLOSING:
            self._connection.receive_data(data, now)

    def _refresh(self) -> None:
        if self._refresh_at == -_NEVER:
            self._endpoint.heard(self)
        self._refresh_at = self._now + _REFRESH
        self._endpoint.sessions.refresh(self.id, self._now)

    def _packet_or_reply(self, session: Session[AnyPacket], packet: AnyPacket) -> None:
        assert self._requests is not None
        if not self._requests.take(packet):
            self._handler.packet_received(self, packet)

    def _packets_or_replies(self, session: Session[AnyPacket], packets: list[AnyPacket]) -> None:
        assert self._requests is not None
        if packets := [packet for packet in packets if not self._requests.take(packet)]:
            self._handler.packets_received(self, packets)

    def _deliver(self, event: Event[AnyPacket]) -> None:
        match event:
            case Malformed():
                self._endpoint.malformed(event, self.peer, self)
                self._handler.malformed(self, event)
                if self._endpoint.config.on_malformed == "close" or self._endpoint.ends_on_malformed:
                    self._close(CloseReason.PROTOCOL_ERROR)
            case Message():
                if self._requests is None or not self._requests.take(event):
                    self._handler.message_received(self, event)
            case EndOfStream():
                if self._requests is not None:
                    self._call(_give_up, self._requests, SessionClosed(CloseReason.PEER))
                self._handler.eof_received(self)
            case _:
                raise AssertionError("the pump delivers packets, and _take keeps Closed out of the queue")

    def _written(self, taken: int) -> None:
        # Who sent so much was told that there is no room, and waits for `writable` though all may have gone.
        must_tell = not self._write_paused and self._unsent > self._endpoint.config.write_high_water
        if taken and not self._lost:
            self._count_sent(taken, self._now)
        if must_tell or self._unsent > self._endpoint.config.write_high_water:
            self._write_paused = True
            self._relieve()
            self._update_reading()
        self._set_room()

    def _set_room(self) -> None:
        self._room = min(maxsize, self._max_outstanding - self._unsent)
        self._ease = -1 if self._write_paused else self._endpoint.config.write_high_water - self._unsent

    def _settle(self) -> None:
        if self._lost:
            self._finish()
            return
        if self._connection.state not in _SENDING:
            self._hang_up()
        self._arm()

    def _hang_up(self) -> None:
        """Tell the host how far the closing has come; each thing once."""
        state = self._connection.state
        if state is State.CLOSING and not self._eof_written:
            self._eof_written = True
            self._update_reading()
            self._host.write_eof()
        elif state is State.CLOSED:
            if self._aborting or self._reason in _ABORTED:
                if self._hang_up_told is not _HangUp.ABORT:
                    self._hang_up_told = _HangUp.ABORT
                    self._abort_at = _NEVER
                    self._host.abort()
            elif self._hang_up_told is _HangUp.NOT_YET:
                self._hang_up_told = _HangUp.CLOSE
                timeout = self._endpoint.config.close_timeout
                self._abort_at = _NEVER if timeout is None else self._now + timeout
                self._host.close()

    def _arm(self) -> None:
        """Have the timer fire no later than needed. One set too early is left as it is."""
        self._must_arm = self._endpoint.config.join_messages  # messages have deadlines of their own
        if self._reading != self._reading_told:
            self._reading_told = self._reading
            self._connection.set_reading(self._reading, self._now)
        deadline = self._connection.next_deadline() if self._hang_up_told is _NOT_YET else self._abort_at
        if self._requests is not None:
            deadline = earlier(deadline, self._requests.next_deadline(may_send=self._connection.state in _SENDING))
        if deadline is not None and deadline < self._timer_at and not self._lost:
            self._timer_at = deadline
            self._host.set_timer(deadline)

    def _finish(self) -> None:
        if self._finished:
            return
        self._finished = True
        if self._timer_at < _NEVER:
            self._host.set_timer(None)
        if self.id:
            reason = CloseReason.LOCAL if self._reason is None else self._reason
            self._endpoint.left(self)
            if self._requests is not None:
                self._call(_give_up, self._requests, SessionClosed(reason))
            self._call(self._handler.disconnected, reason)
            self._endpoint.finished(self, reason)

    # What a tap is told.

    def _tell_sent(self, data: bytes) -> None:
        self._tell("sent", data)

    def _tell_eof_sent(self) -> None:
        self._tell("eof_sent")

    def _tell_received(self, data: bytes | bytearray | memoryview) -> None:
        if data and not self._lost:
            self._tell("received", data)

    def _tell(self, verb: str, *args: object) -> None:
        if self._tap is None:
            return
        try:
            getattr(self._tap, verb)(self, *args)
        except Exception:
            self._tap = None
            self._endpoint.log_exception(f"the tap of session {self.id} with {self.peer} raised, and hears no more")

    # What both sides use.

    def _close(self, reason: CloseReason) -> None:
        if self._lost:
            return
        self._discard_queue()
        self._take(self._connection.close(self._now, reason))
        self._wake()

    def _take(self, events: list[Event[AnyPacket]]) -> None:
        if events and isinstance(last := events[-1], Closed):
            self._reason = last.reason
            events.pop()
        self._queue[:0] = events[::-1]

    def _discard_queue(self) -> None:
        if self._queue:
            self._connection.count_discarded(sum(type(event) not in OTHERS for event in self._queue))
            self._queue.clear()

    def _check_thread(self) -> None:
        if self._thread and self._thread != get_ident():
            raise WrongThread(f"session {self.id} with {self.peer}")

    def _send_other(self: Session, item: Any) -> bool:
        self._check_thread()
        is_lost = self._lost and not self._finished and self._reason is CloseReason.RESET
        if is_lost and (isinstance(item, (Packet, Message)) or self._endpoint.is_framed):
            # The peer has gone, and the handler hears of that once it has heard all that came
            # before: until then sending is as it was when the network lost what was sent.
            self._connection.count_dropped(1)
            return True
        if isinstance(item, Message) and not self._endpoint.is_framed:
            self.send_message(item.payload, id=item.id, type=item.type)
            return self.has_room
        self._connection.check_sending()
        if self._output.put(item) > self._room:  # raises for what is no packet
            self._overflow()
        self._wake()
        return self.has_room

    def _wake(self) -> None:
        if not (self._running or self._woken or self._lost):
            self._woken = True
            self._host.wake()

    def _overflow(self) -> None:
        """More is unsent than the limit allows: let the socket take what it will first."""
        self._write()
        if self._lost:  # from inside a handler that heard of the write: nobody else will say so
            self._pump()
        elif self._output.size > self._room:  # else what had come is still to be delivered
            self._discard_queue()
            self._take(self._connection.fail(CloseReason.SLOW_CONSUMER, self._now))

    def _update_reading(self) -> None:
        # A closing session reads on, to see the peer's end of stream. So does a client whose
        # server does not read: were both to stop, neither would ever go on.
        is_held = self._paused or (self._write_paused and self._endpoint.is_server)
        reading = not is_held or self._eof_written
        if reading != self._reading and not self._lost:
            self._reading = reading
            self._must_arm = True
            if reading:
                self._host.resume_reading()
            else:
                self._host.pause_reading()

    def _call(
        self, method: Callable[Concatenate[Session[AnyPacket], P], object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Call the handler with the pump held, so that all it sends leaves in one write."""
        outer, self._running = self._running, True
        try:
            method(self, *args, **kwargs)
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            self._handler_failed(error)
        finally:
            self._running = outer

    def _handler_failed(self, error: Exception | KeyboardInterrupt | SystemExit) -> None:
        if isinstance(error, SessionClosed) and not self.is_open:
            return  # it sent to a peer that had just gone: nobody's mistake
        self._on_sent = None  # it hears of nothing more but `disconnected`
        if isinstance(error, Exception):
            self._endpoint.log_exception(f"handler of session {self.id} with {self.peer} raised")
        self._discard_queue()
        self._take(self._connection.fail(CloseReason.HANDLER_ERROR, self._now))
        if not isinstance(error, Exception):
            self._endpoint.end(error, self._now)


def _expire(session: Session[Any], requests: Requests, now: float) -> None:
    requests.expire(now)


def _give_up(session: Session[Any], requests: Requests, error: SessionClosed) -> None:
    requests.fail(error)


def _is_closed(error: BaseException) -> bool:
    # Task groups and nurseries wrap what their tasks raise.
    parts: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    return isinstance(error, SessionClosed) or (bool(parts) and all(map(_is_closed, parts)))
