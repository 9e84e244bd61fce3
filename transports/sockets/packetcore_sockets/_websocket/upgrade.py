"""How an HTTP connection comes to speak WebSocket (RFC 6455, section 4), on both sides, over memory.

What HTTP says is `wsproto`'s to read and to write; whom a server lets in is decided here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from urllib.parse import urlsplit

from wsproto.connection import ConnectionType
from wsproto.events import AcceptConnection, Event, RejectConnection, Request
from wsproto.handshake import H11Handshake
from wsproto.utilities import RemoteProtocolError

from packetcore import WebSocketInfo
from packetcore_sockets._websocket.options import WebSocketError, WebSocketOptions, WebSocketURL

HEADER_SIZE = 16 * 1024
"""Bytes that a handshake's request or answer may have."""

_BLANK_LINE = re.compile(rb"\n\r?\n")


class Upgrade:
    """One side of a handshake. `receive` it what comes until `info` or `error` is there."""

    def __init__(self, handshake: H11Handshake) -> None:
        self._handshake = handshake
        self._head = bytearray()
        self.unsent = b""
        """What the peer is to be sent."""
        self.info: WebSocketInfo | None = None
        """What was agreed on."""
        self.error: WebSocketError | None = None
        """Why nothing was."""

    def receive(self, data: bytes) -> bytes:
        """Take what has come, and give what is behind the handshake."""
        seen = max(0, len(self._head) - 2)
        self._head += data
        end = _BLANK_LINE.search(self._head, seen)
        if (len(self._head) if end is None else end.end()) > HEADER_SIZE:
            self._refuse(431, f"a handshake has {HEADER_SIZE} bytes at most")
        elif end is not None:
            head, rest = bytes(self._head[: end.end()]), bytes(self._head[end.end() :])
            self._head.clear()
            self._read(head)
            del self._handshake  # the session lives on, and its carrier with it
            return rest
        return b""

    def _read(self, head: bytes) -> None:
        try:
            self._handshake.receive_data(head)
            for event in self._handshake.events():
                self._heard(event)
                if self.info is not None or self.error is not None:
                    return
        except RemoteProtocolError as error:
            hint = error.event_hint
            status = hint.status_code if isinstance(hint, RejectConnection) else 400
            self._refuse(status, f"{error}", hint.headers if isinstance(hint, RejectConnection) else ())
        except Exception as error:  # of the codecs and of h11, for headers that are nobody's
            self._refuse(400, f"{type(error).__name__}: {error}")
        else:
            self._refuse(400, "that is no handshake of WebSocket")

    def _heard(self, event: Event) -> None:
        raise NotImplementedError

    def _refuse(self, status: int, why: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._head.clear()
        self.error = WebSocketError(why)


class ServerUpgrade(Upgrade):
    """A server's side.

    Args:
        options: whom to let in.
    """

    def __init__(self, options: WebSocketOptions) -> None:
        super().__init__(H11Handshake(ConnectionType.SERVER))
        self._options = options

    def _heard(self, event: Event) -> None:
        if not isinstance(event, Request):
            return
        options = self._options
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in event.extra_headers)
        origin = next((value for name, value in headers if name == "origin"), None)
        info = WebSocketInfo(event.target, origin, None, headers)
        if options.path is not None and event.target.partition("?")[0] != options.path:
            self._refuse(404, f"there is nothing at {event.target[:200]!r}")
        elif not _is_allowed(origin, event.host, options):
            self._refuse(403, f"pages of {str(origin)[:200]!r} may not connect")
        elif options.require_subprotocol and options.subprotocol not in event.subprotocols:
            self._refuse(400, f"it asked for {event.subprotocols!r:.200}, not for subprotocol {options.subprotocol!r}")
        else:
            chosen = options.subprotocol if options.subprotocol in event.subprotocols else None
            self.unsent = self._handshake.send(AcceptConnection(subprotocol=chosen))
            self.info = replace(info, subprotocol=chosen)

    def _refuse(self, status: int, why: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        super()._refuse(status, why)
        reason = {403: "Forbidden", 404: "Not Found", 426: "Upgrade Required", 431: "Request Header Fields Too Large"}
        lines = [f"HTTP/1.1 {status} {reason.get(status, 'Bad Request')}".encode(), b"Connection: close"]
        lines += [name + b": " + value for name, value in headers]
        lines += [b"Content-Length: 0", b"", b""]
        self.unsent = b"\r\n".join(lines)  # by hand: wsproto refuses no handshake that it could not read


class ClientUpgrade(Upgrade):
    """A client's side.

    Args:
        url: what to ask for.

    Raises:
        ValueError: a header, a name or the path is none.
    """

    def __init__(self, url: WebSocketURL) -> None:
        super().__init__(H11Handshake(ConnectionType.CLIENT))
        headers = [*url.headers.items()] if url.origin is None else [("Origin", url.origin), *url.headers.items()]
        request = Request(
            host=url.authority,
            target=url.target,
            subprotocols=[] if url.subprotocol is None else [url.subprotocol],
            extra_headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        )
        try:
            self.unsent = self._handshake.send(request)
        except Exception as error:
            raise ValueError(f"{url.url!r} cannot be asked for: {error}") from None
        self._url = url

    def _heard(self, event: Event) -> None:
        if isinstance(event, AcceptConnection):
            headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in event.extra_headers)
            self.info = WebSocketInfo(self._url.target, self._url.origin, event.subprotocol, headers)
        elif isinstance(event, RejectConnection):
            self._refuse(event.status_code, f"the server refused with HTTP status {event.status_code}")


def _is_allowed(origin: str | None, host: str, options: WebSocketOptions) -> bool:
    if origin is None or options.origins is None or origin in options.origins:
        return True
    try:
        return urlsplit(origin).netloc.lower() == host.lower() != ""
    except ValueError:
        return False
