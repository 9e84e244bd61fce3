"""The two closed lists of reasons: why bytes were refused, and why a session ended."""

from __future__ import annotations

import enum

# Their members are keys of counters; `Enum.__hash__` is a function in Python that hashes a name.


class Reason(enum.Enum):
    """Why bytes from the peer did not become a packet or a message."""

    __hash__ = object.__hash__

    NOISE = "bytes outside any frame"
    BAD_ESCAPE = "an escape byte that no code follows"
    TOO_SHORT = "a frame shorter than its check or its header"
    LENGTH_MISMATCH = "a frame whose length field disagrees with its payload"
    BAD_LENGTH = "a frame whose length field is impossible"
    BAD_CHECK = "a frame whose check disagrees with its bytes"
    TOO_LONG = "a frame longer than the limit allows"
    NO_PACKET = "a frame that holds no packet"
    FRAMING_FAILED = "bytes on which the framing itself failed"
    TRUNCATED = "the stream or the datagram ended inside a frame"
    DATAGRAM_TOO_LONG = "a datagram longer than max_datagram, cut where it was received"
    COUNT_MISMATCH = "a message whose packet count changed midway"
    MESSAGE_TOO_LONG = "a message longer than the limit allows"
    MESSAGE_INCOMPLETE = "a message given up before its last packet came"


class Refusal(enum.Enum):
    """Why a peer got no session."""

    __hash__ = object.__hash__

    MAX_SESSIONS = "the server holds as many sessions as it may"
    MAX_SESSIONS_PER_HOST = "the peer's host has as many sessions as it may"
    SHUTDOWN = "the server is shutting down"
    TLS_FAILED = "the TLS handshake failed or took too long"
    WEBSOCKET_FAILED = "the WebSocket handshake failed, took too long or was for something else"
    PROXY_FAILED = "the PROXY header was malformed, missing, late or from where none is taken"


class CloseReason(enum.Enum):
    """Why a session ended: the same words on every adapter."""

    __hash__ = object.__hash__

    LOCAL = "this side closed it"
    PEER = "the peer closed it"
    RESET = "the connection was lost, or cut without a word over TLS"
    IDLE_TIMEOUT = "nothing was received for idle_timeout"
    FRAME_TIMEOUT = "a frame was begun and not finished within frame_timeout"
    PROTOCOL_ERROR = "the peer broke the protocol"
    SLOW_CONSUMER = "the peer left more than max_outstanding bytes unread"
    REFUSED = "a cap on sessions was reached, or another machine's session holds its identity"
    REPLACED = "another session took over its identity"
    SHUTDOWN = "the server shut down"
    CONNECT_FAILED = "the connection could not be made"
    HANDLER_ERROR = "the application's handler raised"

    @property
    def is_clean(self) -> bool:
        """Whether the conversation ended the way one side meant it to."""
        return self in _CLEAN


_CLEAN = frozenset({CloseReason.LOCAL, CloseReason.PEER, CloseReason.SHUTDOWN})
