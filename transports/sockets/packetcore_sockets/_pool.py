"""What every adapter's pool of connections to one server takes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, Protocol, overload

from packetcore import AnyItem, Config, FrameDecoder, PacketCodec
from packetcore.framings import Framing
from packetcore_sockets._adapter import Adapter
from packetcore_sockets._websocket.dial import dialler_to


class FramingOf(Protocol[AnyItem]):
    """A `Framing`, as type checkers infer from it what its frames are: `bytes`."""

    @property
    def resynchronises(self) -> bool: ...
    def encode(self, frame: AnyItem, /) -> bytes: ...
    def decoder(self, max_frame: int = ...) -> FrameDecoder[AnyItem]: ...


class PoolOptions(Generic[AnyItem]):
    """Streams to one server, opened when needed and used again. `with` over one that `acquire` lends;
    the same over the pool closes it at the end. Both are `async with` where calls are awaited.

    Args:
        host: a name or an address, or a URL of WebSocket: see `connect`.
        port: its port; a URL needs none.
        config: limits and timeouts of each stream.
        max_size: how many streams there may be.
        max_idle: how long one is kept unused, in seconds; `None` for ever.
        max_lifetime: how old one may become, in seconds; it is never taken from its user.
        max_waiting: how many may wait for one; `None` for no limit.
        framing: see `serve`, and so `codec`.
        options: what else `connect` takes, such as `ssl`.

    Raises:
        ValueError: a limit is too small.
    """

    adapter: Adapter
    """Whose pool this is: a subclass says so."""

    # fmt: off
    @overload
    def __init__(self, host: str, port: int | None = None, *, framing: None = None, codec: None = None,
                 config: Config | None = None, max_size: int = 10, max_idle: float | None = 60.0,
                 max_lifetime: float | None = None, max_waiting: int | None = None, **options: Any) -> None: ...
    @overload
    def __init__(self, host: str, port: int | None = None, *, framing: FramingOf[AnyItem], codec: None = None,
                 config: Config | None = None, max_size: int = 10, max_idle: float | None = 60.0,
                 max_lifetime: float | None = None, max_waiting: int | None = None, **options: Any) -> None: ...
    @overload
    def __init__(self, host: str, port: int | None = None, *, framing: Framing, codec: PacketCodec[AnyItem],
                 config: Config | None = None, max_size: int = 10, max_idle: float | None = 60.0,
                 max_lifetime: float | None = None, max_waiting: int | None = None, **options: Any) -> None: ...
    # fmt: on
    def __init__(
        self,
        host: str,
        port: int | None = None,
        *,
        config: Config | None = None,
        max_size: int = 10,
        max_idle: float | None = 60.0,
        max_lifetime: float | None = None,
        max_waiting: int | None = None,
        framing: Framing | FramingOf[Any] | None = None,
        codec: PacketCodec[Any] | None = None,
        **options: Any,
    ) -> None:
        self.runtime: Any = self.adapter.runtime(options)
        """What it runs on."""
        limits = {"max_size": max_size, "max_idle": max_idle, "max_lifetime": max_lifetime, "max_waiting": max_waiting}

        def connector() -> Callable[[], Any]:
            dial = dialler_to(self.runtime, host, port, **options)
            return partial(self.adapter.open_stream, self.runtime, dial, config, framing, codec)

        self.begin(connector, limits)

    @abstractmethod
    def begin(self, connector: Callable[[], Callable[[], Any]], limits: dict[str, Any]) -> None:
        """Begin, in the manner of the adapter.

        Args:
            connector: makes the coroutine function that opens a stream.
            limits: see `packetcore.ConnectionPool`.
        """
