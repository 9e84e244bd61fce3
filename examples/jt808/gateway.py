"""What the platform does with the packets of its terminals: a `packetcore.Handler`, on any adapter."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from hmac import compare_digest

from packetcore import CloseReason, Config, Handler, Malformed, Session, SessionPool

from .bodies import (
    FAILED,
    OK,
    WRONG,
    Authentication,
    Body,
    Fragment,
    Heartbeat,
    Logout,
    Multimedia,
    MultimediaReply,
    ParameterReply,
    PlatformReply,
    PositionReport,
    Registration,
    RegistrationReply,
    ResendRequest,
    TerminalReply,
    decode_body,
)
from .fragments import Joiner
from .packet import MAX_FRAME, JT808Packet
from .position import Position

CONFIG = Config(max_payload=MAX_FRAME, idle_timeout=180.0, max_sessions=100_000, max_sessions_per_host=None)
"""A terminal may be silent for three heartbeats of a minute. Carriers hide many behind one address."""


@dataclass(slots=True)
class Account:
    """A terminal that has registered."""

    registration: Registration
    code: str
    """What it authenticates itself with."""
    position: Position | None = None
    """The last that it reported."""


@dataclass(slots=True)
class _Talk:
    """What is to be known of one session."""

    phone: str = ""
    version: int | None = None
    serial: int = 0


class Gateway(Handler[JT808Packet]):
    """Registers terminals, lets in those that authenticate themselves, and takes what they report.

    A session is bound to its terminal's phone number: where it comes again by another way, the session
    that it had ends with REPLACED.

    Args:
        clock: tells the time for fragments, in seconds.
        joiner: joins them, within its limits.
        max_accounts: how many terminals may register.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        joiner: Joiner | None = None,
        max_accounts: int = 100_000,
    ) -> None:
        self.counts: Counter[str] = Counter()
        """What happened, in words, and how often."""
        self.accounts: dict[str, Account] = {}
        """The terminals, by phone number."""
        self.on_message: Callable[[str, Body], object] = _nothing
        """Called with a phone number and what its terminal reported, joined where it came in pieces."""
        self.joiner = Joiner() if joiner is None else joiner
        self._clock = clock
        self._max_accounts = max_accounts
        self._talks: dict[int, _Talk] = {}

    def packet_to(self, session: Session[JT808Packet], body: Body) -> JT808Packet:
        """What to send to the terminal of a session: its header, and a serial number of its own."""
        talk = self._talks[session.id]
        serial, talk.serial = talk.serial, (talk.serial + 1) & 0xFFFF
        return JT808Packet(talk.phone, serial, body, talk.version)

    def tick(self, sessions: SessionPool[Session[JT808Packet]]) -> None:
        """Ask for fragments that are missing, and give up messages that took too long. To be called
        now and then, once a second for instance."""
        now = self._clock()
        if given_up := self.joiner.expire(now):
            self.counts["messages given up"] += len(given_up)
        for stalled in [*self.joiner.stalled(now)]:
            session = sessions.get(stalled.sender)
            if session is not None and session.is_open:
                self.counts["requests for fragments"] += 1
                self._send(session, ResendRequest(stalled.serial, stalled.missing))

    # What a session tells.

    def connected(self, session: Session[JT808Packet]) -> None:
        self._talks[session.id] = _Talk()

    def packet_received(self, session: Session[JT808Packet], packet: JT808Packet) -> None:
        if session.identity is None:
            talk = self._talks[session.id]
            talk.phone, talk.version = packet.phone, packet.version
        match packet.body:
            case _ if session.identity not in (None, packet.phone):
                self._turn_away(session, packet)
            case Registration() as registration:
                self._register(session, packet, registration)
            case Authentication(code=code):
                self._authenticate(session, packet, code)
            case _ if session.identity is None:
                self._turn_away(session, packet)
            case Fragment():
                self._join(session, packet)
            case body:
                self._take(session, packet, body)

    def malformed(self, session: Session[JT808Packet], malformed: Malformed) -> None:
        self.counts[f"malformed: {malformed.reason.name}"] += 1

    def disconnected(self, session: Session[JT808Packet], reason: CloseReason) -> None:
        del self._talks[session.id]
        if given_up := self.joiner.forget(session.id):
            self.counts["messages given up"] += given_up
        self.counts[f"sessions ended: {reason.name}"] += 1

    # Who it is.

    def _turn_away(self, session: Session[JT808Packet], packet: JT808Packet) -> None:
        """It has not said who it is, or speaks for another terminal."""
        self.counts["strangers turned away"] += 1
        self._reply(session, packet, FAILED)
        session.close()

    def _register(self, session: Session[JT808Packet], packet: JT808Packet, registration: Registration) -> None:
        account = self.accounts.get(packet.phone)
        if account is None and len(self.accounts) >= self._max_accounts:
            self.counts["registrations refused"] += 1
            body = RegistrationReply(packet.serial, RegistrationReply.FULL)
        elif account is not None and account.registration != registration:
            self.counts["registrations refused"] += 1
            body = RegistrationReply(packet.serial, RegistrationReply.TAKEN)
        else:
            if account is None:
                account = self.accounts[packet.phone] = Account(registration, secrets.token_hex(8))
            self.counts["registrations"] += 1
            body = RegistrationReply(packet.serial, OK, account.code)
        self._send(session, body)

    def _authenticate(self, session: Session[JT808Packet], packet: JT808Packet, code: str) -> None:
        account = self.accounts.get(packet.phone)
        if account is None or not compare_digest(account.code.encode(), code.encode()):
            self.counts["authentications refused"] += 1
            self._reply(session, packet, FAILED)
            session.close()
            return
        session.bind(packet.phone)
        self.counts["authentications"] += 1
        self._reply(session, packet)

    # What it says.

    def _join(self, session: Session[JT808Packet], packet: JT808Packet) -> None:
        self.counts["fragments"] += 1
        try:
            data = self.joiner.add(session.id, packet, self._clock())
            body = None if data is None else decode_body(packet.message_id, data, packet.version)
        except ValueError:
            self.counts["messages refused"] += 1
            self._reply(session, packet, WRONG)
            return
        self._reply(session, packet)
        if body is not None:
            self._take_message(session, body)

    def _take(self, session: Session[JT808Packet], packet: JT808Packet, body: Body) -> None:
        match body:
            case TerminalReply() | ParameterReply():
                self.counts["replies nobody waits for"] += 1  # the others went to their requests
                return
            case Logout():
                self.counts["logouts"] += 1
                self._reply(session, packet)
                del self.accounts[packet.phone]
                session.close()
                return
            case Heartbeat():
                self.counts["heartbeats"] += 1
        self._reply(session, packet)
        self._take_message(session, body)

    def _take_message(self, session: Session[JT808Packet], body: Body) -> None:
        phone = str(session.identity)
        match body:
            case PositionReport(position):
                self.counts["positions"] += 1
                self.accounts[phone].position = position
            case Multimedia(number=number):
                self.counts["uploads"] += 1
                self._send(session, MultimediaReply(number))
        self.on_message(phone, body)

    def _reply(self, session: Session[JT808Packet], packet: JT808Packet, result: int = OK) -> None:
        self._send(session, PlatformReply(packet.serial, packet.message_id, result))

    def _send(self, session: Session[JT808Packet], body: Body) -> None:
        session.send(self.packet_to(session, body))


def _nothing(phone: str, body: Body) -> None:
    pass
