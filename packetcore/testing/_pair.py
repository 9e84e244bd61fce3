"""A client and a server, joined: what one sends the other gets."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Generic

from packetcore._config import Config
from packetcore._frames import PacketCodec
from packetcore._packet import AnyPacket
from packetcore.framings import Framing
from packetcore.testing._clock import Clock
from packetcore.testing._side import Application
from packetcore.testing._socket import End
from packetcore.testing._streams import FakeEndpoint, FakeSession


class _Joined(FakeSession[AnyPacket]):
    """An end of a wire to another."""

    def __init__(
        self, endpoint: FakeEndpoint[AnyPacket], cuts: Iterator[int], other: _Joined[Any] | None = None
    ) -> None:
        self._cuts = cuts
        self._other = other
        self._wire: deque[bytes | End] = deque()  # what is under way to the other
        if other is not None:
            other._other = self
        super().__init__(endpoint)

    def _leave(self, item: bytes | End) -> None:
        if isinstance(item, bytes):
            self._sent += self._decoder.feed(item)
        self._wire.append(item)
        self.clock.call_soon(self.carry)

    def carry(self) -> None:
        """Hand over what is under way, cut anew."""
        other = self._other
        if other is None:
            return  # it is not there yet
        while self._wire:
            item = self._wire.popleft()
            if isinstance(item, End):
                other._socket.arrive(item)
                continue
            while self._wire and isinstance(self._wire[0], bytes):
                item += self._wire.popleft()  # type: ignore[operator]
            size = next(self._cuts, len(item))
            if size < 1:
                raise ValueError(f"cuts={size} must be at least 1 byte")
            if len(item) > size:
                self._wire.appendleft(item[size:])
            other._socket.arrive(item[:size])


class Pair(Generic[AnyPacket]):
    """A client and a server joined to each other, with one clock. What one sends the other gets at once;
    either is a `FakeSession`, whose `sent` tells what that was.

    Args:
        client: the client's application: a handler, or an async function over a stream; `Handler()` does
            nothing.
        server: the server's.
        config: limits and timeouts, of both.
        client_config: those of the client, where they are others.
        framing: another framing than the default.
        codec: what stands in its frames; `None` for frames of bytes.
        client_codec: what the client speaks, where the two do not encode and decode the same packets.
        cuts: how many bytes at a time arrive, on either side in turn, and the rest whole: `itertools.repeat(1)`
            for single bytes, a list of hypothesis's for anything.
        clock: the time; its own by default.
        reraise: see `FakeEndpoint`.
    """

    def __init__(
        self,
        client: Application[Any],
        server: Application[AnyPacket],
        config: Config | None = None,
        *,
        client_config: Config | None = None,
        framing: Framing | None = None,
        codec: PacketCodec[AnyPacket] | None = None,
        client_codec: PacketCodec[Any] | None = None,
        cuts: Iterable[int] = (),
        clock: Clock | None = None,
        reraise: bool = True,
    ) -> None:
        self.clock = Clock() if clock is None else clock
        """The time of both."""
        client_codec = codec if client_codec is None else client_codec
        client_config = config if client_config is None else client_config
        client_end: FakeEndpoint[Any] = FakeEndpoint(
            client,
            client_config,
            is_server=False,
            framing=framing,
            codec=client_codec,
            peer_codec=codec,
            clock=self.clock,
            reraise=reraise,
        )
        server_end: FakeEndpoint[AnyPacket] = FakeEndpoint(
            server,
            config,
            framing=framing,
            codec=codec,
            peer_codec=client_codec,
            clock=self.clock,
            reraise=reraise,
        )
        sizes = iter(cuts)
        joined = _Joined(client_end, sizes)
        self.client: FakeSession[Any] = joined
        """The client's session."""
        self.server: FakeSession[AnyPacket] = _Joined(server_end, sizes, joined)
        """The server's."""
        self.clock._perform(joined.carry)

    def advance(self, seconds: float) -> None:
        """Let time pass; see `Clock.advance`."""
        self.clock.advance(seconds)

    def lost(self, error: Exception | None = None) -> None:
        """The connection breaks, for both: see `FakeSession.lost`."""
        for end in (self.client, self.server):
            if not end.is_over:
                end.lost(error)
