"""A simulated terminal, as it sits in a vehicle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from functools import partial

from packetcore import CloseReason, Config, Handler, Session
from packetcore_asyncio import connect, request

from .bodies import (
    NOT_SUPPORTED,
    OK,
    Authentication,
    Body,
    Heartbeat,
    Multimedia,
    MultimediaReply,
    ParameterQuery,
    ParameterReply,
    PlatformReply,
    PositionReport,
    Registration,
    RegistrationReply,
    ResendRequest,
    TerminalReply,
    Text,
)
from .fragments import split
from .packet import FRAMING, MAX_FRAME, JT808Codec, JT808Packet, answers
from .position import Position

CONFIG = Config(max_payload=MAX_FRAME, idle_timeout=None)

HEARTBEAT_INTERVAL = 0x0001
"""The number of a parameter: seconds."""


class SignInFailed(Exception):
    """The platform does not want this terminal."""


class Terminal(Handler[JT808Packet]):
    """One terminal, for one connection at a time.

    Args:
        phone: its number.
        registration: what it says of itself.
        version: `None` for the header of 2013, 1 for that of 2019.
        code: what it authenticates itself with, where it is registered already.
        timeout: how long it waits for a reply, in seconds.
    """

    session: Session[JT808Packet]
    """From `connect` on."""

    def __init__(
        self,
        phone: str,
        registration: Registration,
        *,
        version: int | None = None,
        code: str = "",
        timeout: float = 20.0,
    ) -> None:
        self.phone = phone
        self.registration = registration
        self.version = version
        self.code = code
        self.texts: list[str] = []
        """What its driver was told."""
        self.resent = 0
        """How many fragments it was asked for again."""
        self.over: asyncio.Future[CloseReason] | None = None
        """Has the reason once the connection is over."""
        self._timeout = timeout
        self._serial = 0
        self._uploading: list[JT808Packet] = []

    async def connect(self, host: str, port: int) -> None:
        """Connect to the platform."""
        self.over = asyncio.get_running_loop().create_future()
        self.session = await connect(host, port, self, config=CONFIG, framing=FRAMING, codec=JT808Codec())

    async def sign_in(self) -> None:
        """Register, if that was not done before, and authenticate.

        Raises:
            SignInFailed: the platform says no.
        """
        if not self.code:
            reply = (await self.ask(self.registration)).body
            if not isinstance(reply, RegistrationReply) or reply.result != OK:
                raise SignInFailed(f"{self.phone} cannot register: {reply}")
            self.code = reply.code
        answer = (await self.ask(Authentication(self.code))).body
        if not isinstance(answer, PlatformReply) or answer.result != OK:
            raise SignInFailed(f"{self.phone} cannot authenticate: {answer}")

    async def beat(self) -> None:
        """Say that it lives."""
        await self.ask(Heartbeat())

    async def report(self, position: Position) -> None:
        """Say where it is."""
        await self.ask(PositionReport(position))

    async def upload(self, photo: Multimedia, *, size: int = 512, lost: Collection[int] = ()) -> None:
        """Send a photo in fragments, and wait until the platform says that it is whole.

        Args:
            size: bytes of a fragment.
            lost: which fragments, from 1 on, get lost on their way the first time.
        """
        packets = split(self.phone, self._serial, photo, self.version, size=size)
        self._serial = (self._serial + len(packets)) & 0xFFFF
        self._uploading = packets
        *others, last = [packet for index, packet in enumerate(packets, 1) if index not in lost]
        for packet in others:
            self._send(packet)
        await self._request(last, partial(_is_whole, photo.number))

    async def ask(self, body: Body) -> JT808Packet:
        """Send a message, and wait for the platform's reply."""
        packet = self._packet(body)
        return await self._request(packet, partial(answers, packet))

    # What the platform tells.

    def packet_received(self, session: Session[JT808Packet], packet: JT808Packet) -> None:
        match packet.body:
            case ParameterQuery():
                parameters = ((HEARTBEAT_INTERVAL, (60).to_bytes(4, "big")),)
                self._send(self._packet(ParameterReply(packet.serial, parameters)))
            case Text(text=text):
                self.texts.append(text)
                self._send(self._packet(TerminalReply(packet.serial, packet.message_id)))
            case ResendRequest(serial, indexes):
                if self._uploading and self._uploading[0].serial == serial:
                    wanted = [index for index in indexes if 1 <= index <= len(self._uploading)]
                    self.resent += len(wanted)
                    for index in wanted:
                        self._send(self._uploading[index - 1])
            case PlatformReply() | RegistrationReply() | MultimediaReply():
                pass  # to a fragment, or too late
            case _:
                self._send(self._packet(TerminalReply(packet.serial, packet.message_id, NOT_SUPPORTED)))

    def disconnected(self, session: Session[JT808Packet], reason: CloseReason) -> None:
        if self.over is not None and not self.over.done():
            self.over.set_result(reason)

    def _packet(self, body: Body) -> JT808Packet:
        serial, self._serial = self._serial, (self._serial + 1) & 0xFFFF
        return JT808Packet(self.phone, serial, body, self.version)

    def _send(self, packet: JT808Packet) -> None:
        self.session.send(packet)

    async def _request(self, packet: JT808Packet, match: Callable[[JT808Packet], bool]) -> JT808Packet:
        return await request(self.session, packet, match=match, timeout=self._timeout)


def _is_whole(number: int, reply: JT808Packet) -> bool:
    return reply.body == MultimediaReply(number)
