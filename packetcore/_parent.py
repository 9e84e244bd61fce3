"""What a session asks of the server or client that it belongs to: an `Endpoint`, as sessions see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from packetcore._carrier import Address
from packetcore._codec import Codec
from packetcore._config import Config
from packetcore._events import Malformed
from packetcore._listener import Listener
from packetcore._packet import AnyPacket
from packetcore._pool import SessionPool
from packetcore._reasons import CloseReason, Refusal
from packetcore._stats import EndpointStats

S = TypeVar("S")


class Parent(Protocol[S, AnyPacket]):
    """What sessions of the kind `S` share. `Endpoint` says more of each."""

    config: Config
    """Limits and timeouts."""

    connection_config: Config
    """The same, for the connection below a session."""

    codec: Codec[AnyPacket] | None
    """Another framing in place of this format."""

    is_framed: bool
    """Whether packets may be of any type."""

    ends_on_malformed: bool
    """Whether a session ends with the first bytes that are no frame."""

    sessions: SessionPool[S]
    """The sessions that live, by id and by identity."""

    is_server: bool
    """Whether the peers came to us."""

    is_tied_to_thread: bool
    """Whether a session may be used on the thread alone on which it began."""

    draining: bool
    """Whether it is shutting down."""

    admits: bool
    """Whether it takes new sessions."""

    runtime: Any
    """What its sessions live on, where an adapter has said so."""

    log_exception: Callable[[str], object]
    """Called with a message while an exception is handled."""

    @property
    def stats(self) -> EndpointStats:
        """What it has seen until now."""

    def own_sessions(self) -> list[S]:
        """Those of its sessions that are open."""

    def call_soon(self, function: Callable[..., object], /, *args: object) -> None:
        """Call a function on the runtime's thread: from any thread."""

    def new_handler(self) -> Listener[S, AnyPacket]:
        """The handler of one more session."""

    def overrides(self, method: Callable[..., object], /) -> bool:
        """Whether a handler's `packets_received` or `sent` is the application's own."""

    def admitted(self, session: S, /) -> None:
        """A session has entered the pool."""

    def opened(self, session: S, /) -> None:
        """The handler of a session has heard of it."""

    def heard(self, session: S, /) -> None:
        """The first bytes of a session have come."""

    def refused(self, peer: Address, refusal: Refusal, /) -> None:
        """A peer was turned away."""

    def malformed(self, malformed: Malformed, peer: Address, session: S, /) -> None:
        """Something malformed came of a session, and its handler will hear of it."""

    def left(self, session: S, /) -> None:
        """A session is over."""

    def finished(self, session: S, reason: CloseReason, /) -> None:
        """The handler of a session has heard that it is over."""

    def end(self, error: KeyboardInterrupt | SystemExit, now: float, /) -> None:
        """A handler wants the program to end."""
