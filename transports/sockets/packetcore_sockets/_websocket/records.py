"""WebSocket over memory (RFC 6455): what the session sends goes as binary messages, and what
binary messages hold is the session's stream, wherever they cut it.

Nothing is kept of a message: its bytes go on as they come, so that no length that a peer names costs
memory. Of control frames, which may be answered, one answer waits at most.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from ssl import SSLContext

from packetcore import Carrier
from packetcore_sockets._records import Records
from packetcore_sockets._tls import TLSRecords
from packetcore_sockets._websocket.frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    CloseCode,
    FrameError,
    FrameReader,
    make_frame,
)
from packetcore_sockets._websocket.options import WebSocketError, WebSocketOptions, WebSocketURL
from packetcore_sockets._websocket.upgrade import ClientUpgrade, ServerUpgrade

MESSAGE = 64 * 1024
"""Bytes of payload in one message that is sent: others take far more, but not all without end."""

MAX_UNSENT = 64 * 1024
"""Bytes under way to a peer beyond which its pings wait for an answer, of which it then gets one."""


class WebSocketRecords(Records):
    """One side of one WebSocket connection.

    A Close frame of the peer's is its end of the stream, and `close` sends one; the socket may still be
    read then, and its sending half stays open, since proxies take the end of that for the end of all.

    Args:
        upgrade: the handshake, new.
        is_client: which side this is.
        tls: what it speaks through, new; `None` for none.
        ping_interval: see `WebSocketOptions`.
    """

    protocol = "WebSocket"
    ends_socket = False

    def __init__(
        self,
        upgrade: ServerUpgrade | ClientUpgrade,
        *,
        is_client: bool,
        tls: TLSRecords | None = None,
        ping_interval: float | None = None,
    ) -> None:
        self._upgrade = upgrade
        self._is_client = is_client
        self._reader = FrameReader(is_client)
        self._tls = tls
        self.ping_interval = ping_interval
        self._unsent = bytearray(upgrade.unsent)
        self._early = b""  # what came with the end of the handshake
        self._pong: bytes | None = None  # what the last ping wants to be answered with
        self._has_heard = self._is_closing = self._is_deaf = False
        self._is_cut = False  # TLS has ended
        self._error: WebSocketError | None = None
        self._code: CloseCode | None = None  # that says why
        self._made = 0  # bytes of frames
        self._went = 0  # how many of them have gone
        self._partly = 0  # how many of the application's have gone of the frame under way
        self._ends: deque[tuple[int, int]] = deque([(len(self._unsent), 0)])  # see `TLSRecords`

    @property
    def is_secured(self) -> bool:
        """Whether what it speaks through is ready."""
        return self._tls is None or self._tls.is_open

    @property
    def error(self) -> OSError | None:
        """See `Records`."""
        return self._error or (None if self._tls is None else self._tls.error)

    def shake_hands(self, data: bytes) -> None:
        """See `Records`."""
        plain = self._decrypt(data)
        if self._error is not None:
            return
        if self.is_open:
            self._early += plain
            return
        if self._is_cut:
            self._error = WebSocketError("the peer ended TLS during the WebSocket handshake")
            return
        rest = self._upgrade.receive(plain)
        if not self._is_client:
            self._unsent += self._upgrade.unsent
        if self._upgrade.error is not None:
            self._error = self._upgrade.error
        elif self._upgrade.info is not None:
            self.is_open = True
            self._early = rest

    def receive(self, data: bytes) -> bytes:
        """See `Records`."""
        if self.is_open:
            data = self._decrypt(data)
        else:
            self.shake_hands(data)
            data = b""
        if self._early:
            data, self._early = self._early + data, b""
        if self.at_end or self._error is not None:
            return b""
        stream = self._unpack(data) if data and not self._is_deaf else b""
        if self._is_cut and not self.at_end and self._error is None:
            if self._is_closing:  # it has nothing to say to that
                self.at_end = True
            else:
                self._error = WebSocketError("the peer ended TLS without a Close frame")
        return stream

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """See `Records`."""
        size = len(data)
        if size <= MESSAGE:
            self._put(BINARY, data, size)
            return
        with memoryview(data) as view:
            for at in range(0, size, MESSAGE):
                self._put(BINARY, view[at : at + MESSAGE], min(MESSAGE, size - at))

    def ping(self) -> None:
        """See `Records`."""
        if self.is_open and not self._is_closing and self._error is None:
            self._put(PING)

    def heard(self) -> bool:
        """See `Records`."""
        has_heard, self._has_heard = self._has_heard, False
        return has_heard

    def close(self, *, going_away: bool = False) -> None:
        """See `Records`."""
        if self.is_open and not self._is_closing:
            self._is_closing = True
            code = self._code or (CloseCode.GOING_AWAY if going_away else CloseCode.NORMAL)
            self._put(CLOSE, code.to_bytes(2, "big"))
        self._end_tls()

    def take(self) -> bytes:
        """See `Records`."""
        if self._pong is not None and self._made - self._went <= MAX_UNSENT and not self._is_closing:
            pong, self._pong = self._pong, None
            self._put(PONG, pong)
        frames = bytes(self._unsent) if self.is_secured else b""
        if frames:
            self._unsent.clear()
            self._made += len(frames)
        if self._tls is None:
            return frames
        if frames:
            self._tls.send(frames)
        self._end_tls()
        return self._tls.take()

    def went(self, size: int) -> int:
        """See `Records`."""
        self._went += size if self._tls is None else self._tls.went(size)
        gone = -self._partly
        while self._ends and self._ends[0][0] <= self._went:
            gone += self._ends.popleft()[1]
        # A slow peer may take longer for one frame than it may be silent.
        self._partly = max(0, self._ends[0][1] - (self._ends[0][0] - self._went)) if self._ends else 0
        return gone + self._partly

    def carrier(self, below: Carrier) -> Carrier:
        """See `Records`."""
        through = below if self._tls is None else self._tls.carrier(below)
        return replace(through, kind="websocket", websocket=self._upgrade.info)

    def _decrypt(self, data: bytes) -> bytes:
        if self._tls is None:
            return data
        plain = self._tls.receive(data)
        self._is_cut = self._tls.at_end
        return plain

    def _unpack(self, data: bytes) -> bytes:
        stream: list[bytes] = []
        control: list[tuple[int, bytes]] = []
        try:
            self._reader.receive(data, stream, control)
        except FrameError as error:
            self._fail(error)
        for opcode, payload in control:
            self._has_heard = True
            if opcode == PING:
                self._pong = payload
            elif opcode == CLOSE and self._error is None:
                self.at_end = True
        return b"".join(stream)

    def _fail(self, error: FrameError) -> None:
        if self._is_closing:  # of what comes after our own end only the peer's end counts
            self._is_deaf = True
        else:
            self._code = error.code
            self._error = WebSocketError(f"the peer broke the rules of WebSocket: {error}")

    def _put(self, opcode: int, payload: bytes | bytearray | memoryview = b"", size: int = 0) -> None:
        """Have a frame taken, in which `size` bytes are the application's."""
        self._unsent += make_frame(opcode, payload, is_client=self._is_client)
        self._ends.append((self._made + len(self._unsent), size))

    def _end_tls(self) -> None:
        """Once both sides have said that they have finished, or one that it must."""
        has_finished = self._is_closing and (self.at_end or self._error is not None)
        if self._tls is not None and not self._unsent and (has_finished or self._upgrade.error is not None):
            self._tls.close()


def server_records(options: WebSocketOptions, context: SSLContext | None) -> WebSocketRecords:
    """A server's side of a new connection.

    Args:
        options: whom to let in.
        context: what to speak TLS by; `None` for none.
    """
    tls = None if context is None else TLSRecords(context, server_side=True)
    return WebSocketRecords(ServerUpgrade(options), is_client=False, tls=tls, ping_interval=options.ping_interval)


def client_records(url: WebSocketURL, context: SSLContext | None, server_hostname: str | None) -> WebSocketRecords:
    """A client's side of a new connection.

    Args:
        url: what to ask for.
        context: what to speak TLS by; `None` for none.
        server_hostname: the name to verify, where it is not the URL's.

    Raises:
        ValueError: see `ClientUpgrade`.
    """
    upgrade = ClientUpgrade(url)
    tls = None if context is None else TLSRecords(context, server_hostname=server_hostname or url.host)
    return WebSocketRecords(upgrade, is_client=True, tls=tls, ping_interval=url.ping_interval)
