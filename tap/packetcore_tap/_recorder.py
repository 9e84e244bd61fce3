"""A `packetcore.Wiretap` that writes a capture: what each session received and sent, and when."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from packetcore import Address, Carrier, ProxiedAddress
from packetcore_tap._capture import Side
from packetcore_tap._recording import Recording


class Recorder:
    """Records the sessions of any server, client or pool of any adapter, over any carrier: give it to each as
    `Config(tap=recorder)`. It may be given to several.

    The chunks are as the session received and sent them: without TLS, WebSocket and the PROXY protocol. What was
    sent is noted when it is handed to the socket, whether or not the peer ever gets it. Of UDP
    each chunk is a datagram; those that belong to no session, for want of a packet in them or of room, are there too.

    What becomes of the files is as with `Recording`; no session ever notices.

    Args:
        path: see `Recording`, and so all that follows.

    Raises:
        OSError: the file cannot be made.
        ValueError: a limit is out of its range.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = 64 << 20,
        keep: int = 5,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.recording = Recording(path, max_bytes=max_bytes, keep=keep, clock=clock)
        """What it writes by."""

    @property
    def missed(self) -> int:
        """How many chunks are not recorded, because the disk was too slow or they were too long."""
        return self.recording.missed

    @property
    def error(self) -> OSError | None:
        """Why the recording has ended early; `None` if it has not."""
        return self.recording.error

    def close(self) -> None:
        """End the recording, and wait up to 5 seconds for the disk. Sessions go on. Idempotent."""
        self.recording.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # What sessions tell.

    def opened(self, session: Any) -> None:
        """See `packetcore.Wiretap`, and so all that follows."""
        if self.recording.is_closed:
            return
        carrier: Carrier = session.carrier
        is_server = session.endpoint.is_server
        client, server = (session.peer, carrier.local) if is_server else (carrier.local, session.peer)
        self.recording.opened(
            session,
            client,
            server,
            kind="datagram" if carrier.kind == "udp" else "stream",
            here=Side.SERVER if is_server else Side.CLIENT,
            comment=_comment(session, carrier),
        )

    def received(self, session: Any, data: bytes | bytearray | memoryview) -> None:
        self.recording.data(session, _peer(session), bytes(data))

    def sent(self, session: Any, data: bytes) -> None:
        self.recording.data(session, _peer(session).other, data)

    def eof(self, session: Any) -> None:
        self.recording.ended(session, _peer(session))

    def eof_sent(self, session: Any) -> None:
        self.recording.ended(session, _peer(session).other)

    def unclaimed(self, endpoint: Any, data: bytes, peer: Address, carrier: Carrier) -> None:
        client, server = (peer, carrier.local) if endpoint.is_server else (carrier.local, peer)
        here = Side.SERVER if endpoint.is_server else Side.CLIENT
        key = "unclaimed", peer
        self.recording.opened(key, client, server, kind="datagram", here=here, comment="of no session, udp")
        self.recording.data(key, here.other, data)
        self.recording.forget(key)

    def lost(self, session: Any, error: BaseException | None) -> None:
        recording, peer = self.recording, _peer(session)
        if error is not None:
            recording.closed(session, reset=peer, comment=f"session {session.id} was lost: {error!r}")
        elif recording.has_ended(session, peer):
            recording.closed(session)
        elif recording.has_ended(session, peer.other):  # some runtimes do not say whether the peer has
            recording.forget(session)
        else:
            recording.closed(session, reset=peer.other)


def _peer(session: Any) -> Side:
    return Side.CLIENT if session.endpoint.is_server else Side.SERVER


def _comment(session: Any, carrier: Carrier) -> str:
    """What a header of IP cannot tell of a session."""
    side = "server" if session.endpoint.is_server else "client"
    parts = [f"session {session.id} of a {side}, {carrier.kind}"]
    if carrier.tls is not None:
        parts.append(f"decrypted from {carrier.tls.version}")
    if carrier.websocket is not None:
        parts.append(f"path {carrier.websocket.path}")
    if isinstance(session.peer, ProxiedAddress):
        parts.append(f"through the proxy {_text(session.peer.proxy.address)}")
    if carrier.kind not in ("tcp", "udp", "websocket"):
        parts.append(f"peer {_text(session.peer)}, here {_text(carrier.local)}; the addresses are made up")
    return "; ".join(parts)


def _text(address: Address | None) -> str:
    return "unknown" if address is None else ":".join(map(str, address[:2])) or '""'
