"""Packets for the sessions of this worker, from callers here and elsewhere: bounded, and counted.

What a device does not read piles up in its session up to `write_high_water` and a packet more;
then the next is refused with `SlowConsumer`, and the session goes on. So a device that reads nothing
costs its worker as much as without a cluster, and the broker nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any

from packetcore import (
    PacketCodec,
    Session,
    SessionClosed,
    SessionPool,
)
from packetcore_cluster._calls import Call, Outcome, answer_bytes
from packetcore_cluster._errors import NotDelivered, SlowConsumer
from packetcore_cluster._keys import identity_of
from packetcore_cluster._stats import ClusterStats

IsReply = Callable[[Any, Any], bool]

MAX_UNANSWERED = 100
"""Requests through the cluster that wait for one session's replies."""


class Delivery:
    """Knows no broker, and of a runtime its clock; call it on the thread of the sessions.

    Args:
        sessions: where they are.
        codec: how packets travel.
        is_reply: tells whether a packet, the second, is the reply to another, the first; `None` for
            the packets of the default format, whose ids tell.
        stats: what counts.
    """

    def __init__(
        self,
        sessions: SessionPool[Session[Any]],
        codec: PacketCodec[Any],
        is_reply: IsReply | None,
        stats: ClusterStats,
    ) -> None:
        self._sessions = sessions
        self._codec = codec
        self._is_reply = is_reply
        self._stats = stats
        self._unanswered: Counter[int] = Counter()
        self._asked: dict[str, Callable[[], object] | None] = {}  # what forgets each request of another worker

    def find(self, identity: Hashable) -> Session[Any] | None:
        """The session here that holds an identity and can send; `None` if there is none."""
        session = self._sessions.find(identity)
        return session if session is not None and session.is_open else None

    def send(self, session: Session[Any], packet: Any) -> None:
        """Send a packet to a session here.

        Raises:
            SlowConsumer: its device leaves too much unread.
            LocalProtocolError: what `Session.send` says.
        """
        self._check_room(session)
        session.send(packet)

    def request(
        self, session: Session[Any], packet: Any, timeout: float | None, done: Callable[[Any], object]
    ) -> Callable[[], object]:
        """Ask a session here. `done` is called once, with the reply or an exception.

        Returns:
            What forgets the request.

        Raises:
            SlowConsumer: its device leaves too much unread, or unanswered.
            LocalProtocolError: what `Session.request` says.
            TypeError: packets have no id, and it was not said how to know a reply.
        """
        self._check_room(session)
        id = session.id
        if self._unanswered[id] >= MAX_UNANSWERED:
            self._stats.slow += 1
            raise SlowConsumer(f"session {id}: {self._unanswered[id]} requests wait for its replies already")
        if self._is_reply is None and session.endpoint.is_framed:
            raise TypeError("is_reply=None: packets of another framing have no id to know a reply by")

        waits = True

        def settle() -> None:
            nonlocal waits
            if waits:
                waits = False
                self._settle(id)

        def answered(reply: Any) -> None:
            settle()
            done(reply)

        match = self._is_reply
        self._unanswered[id] += 1
        try:
            if match is None:
                request = session.request(packet, answered, timeout=timeout, wait=True)
            else:
                request = session.request(packet, answered, timeout=timeout, match=lambda reply: match(packet, reply))
        except BaseException:
            settle()
            raise

        def forget() -> None:
            settle()
            session.forget(request)

        return forget

    def take(self, call: Call, subject: str, answer: Callable[[bytes], object]) -> None:
        """Carry out the call of another worker. `answer` is called once, now or later; not, where the answer by this
        subject is `given_up` before."""
        try:
            session = self.find(identity_of(call.key))
            if session is None:
                answer(answer_bytes(Outcome.NOT_HERE))
                return
            packet = self._codec.decode(call.packet)
            if call.is_request:
                self._ask(session, packet, call.timeout, subject, answer)
            else:
                self.send(session, packet)
                answer(answer_bytes(Outcome.DONE))
            self._stats.received += 1
        except Exception as error:  # also what a codec should not raise: who waits is told
            answer(self._answer(error))

    def given_up(self, subject: str) -> None:
        """Nobody waits any more for the answer by a subject."""
        forget = self._asked.pop(subject, None)
        if forget is not None:
            forget()

    def cast(self, sessions: list[Session[Any]], packet: Any) -> None:
        """Send a packet to each of these, but those that do not keep up."""
        for session in sessions:
            if session.is_open:
                with suppress(SlowConsumer, SessionClosed):  # the first is counted
                    self.send(session, packet)

    def _ask(
        self,
        session: Session[Any],
        packet: Any,
        timeout: float | None,
        subject: str,
        answer: Callable[[bytes], object],
    ) -> None:
        def replied(reply: Any) -> None:
            self._asked.pop(subject, None)
            answer(self._answer(reply))

        self._asked[subject] = None
        try:
            forget = self.request(session, packet, timeout, replied)
        except BaseException:
            self._asked.pop(subject, None)
            raise
        if subject in self._asked:  # else it has its answer already
            self._asked[subject] = forget

    def _check_room(self, session: Session[Any]) -> None:
        config, runtime = session.endpoint.config, session.endpoint.runtime
        if runtime is not None:
            session.congested(runtime.time())  # hands the socket what waits for the end of a turn
        limit = 2 * config.write_high_water
        if config.max_outstanding is not None:
            limit = min(limit, config.max_outstanding // 2)
        if session.write_paused or session.outstanding > limit:
            self._stats.slow += 1
            raise SlowConsumer(f"session {session.id} has {session.outstanding} bytes that its device does not read")

    def _settle(self, id: int) -> None:
        self._unanswered[id] -= 1
        if not self._unanswered[id]:
            del self._unanswered[id]

    def _answer(self, reply: Any) -> bytes:
        """A reply, or what came in its place, as an answer."""
        match reply:
            case SlowConsumer():
                return answer_bytes(Outcome.SLOW_CONSUMER, str(reply).encode())
            case SessionClosed():
                return answer_bytes(Outcome.CLOSED, b"" if reply.reason is None else reply.reason.name.encode())
            case TimeoutError():
                return answer_bytes(Outcome.TIMED_OUT)
            case Exception():
                text = f"{reply.__class__.__name__}: {reply}"
                return answer_bytes(Outcome.NOT_DELIVERED, text.encode(errors="replace"))
            case _:
                try:
                    return answer_bytes(Outcome.DONE, self._codec.encode(reply))
                except Exception as error:
                    return self._answer(NotDelivered(f"the reply cannot be encoded: {error}"))
