"""How the functions that connect are typed, whatever manner they have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, overload

from packetcore import Backoff, Config, Handler

OfStream = TypeVar("OfStream", covariant=True)
OfClient = TypeVar("OfClient", covariant=True)
OfSession = TypeVar("OfSession", covariant=True)


class Connect(Protocol[OfStream, OfClient, OfSession]):
    """What `connect` gives for which handler, in the manner of an adapter."""

    @overload
    def __call__(
        self, host: str, port: int, handler: None = None, *, config: Config | None = None, **options: Any
    ) -> OfStream: ...
    @overload
    def __call__(
        self,
        host: str,
        port: int,
        handler: Handler | Callable[[Any], Any],
        *,
        reconnect: Backoff,
        keep: int = 0,
        config: Config | None = None,
        **options: Any,
    ) -> OfClient: ...
    @overload
    def __call__(
        self, host: str, port: int, handler: Handler, *, config: Config | None = None, **options: Any
    ) -> OfSession: ...


class ConnectUDP(Protocol[OfStream, OfSession]):
    """What `connect_udp` gives for which handler, in the manner of an adapter."""

    @overload
    def __call__(
        self,
        host: str,
        port: int,
        handler: None = None,
        *,
        config: Config | None = None,
        broadcast: bool = False,
        local_host: str | None = None,
        **where: Any,
    ) -> OfStream: ...
    @overload
    def __call__(
        self,
        host: str,
        port: int,
        handler: Handler,
        *,
        config: Config | None = None,
        broadcast: bool = False,
        local_host: str | None = None,
        **where: Any,
    ) -> OfSession: ...
