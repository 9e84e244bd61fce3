"""The cluster for `packetcore_twisted`: calls give Deferreds.

    cluster = Cluster("nats://127.0.0.1:4222", name="fleet")
    yield cluster.start()
    server = yield serve(Gateway(), host, port, sessions=cluster.sessions)
    reply = yield cluster.request("meter 7", Packet(7, b"status?"), timeout=2.0)
    for place in (yield cluster.where()):
        ...

The reactor's thread may use it. It leaves by itself when the reactor stops; `async with` works too.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from packetcore import AnyPacket
from packetcore_cluster._location import Location, locations
from packetcore_cluster._member import Member
from packetcore_cluster._threaded import Threaded


class Cluster(Threaded[AnyPacket]):
    """The sessions of many workers and machines as one register, over NATS with JetStream, on Twisted.

    `on_event` is called on the reactor's thread.

    Args:
        reactor: the global one by default. The others are those of `packetcore_cluster.Cluster`.
    """

    def _settle_on(self, options: dict[str, Any]) -> None:
        reactor = options.pop("reactor", None)
        if reactor is None:
            from twisted.internet import reactor  # not before: importing it is choosing it
        self._reactor = reactor
        self._trigger: Any = None

    async def __aenter__(self) -> Cluster[AnyPacket]:
        """See `start`."""
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """See `stop`."""
        await self.stop()

    def start(self) -> Deferred[None]:  # type: ignore[override]
        return Deferred.fromCoroutine(super().start())

    def stop(self) -> Deferred[None]:  # type: ignore[override]
        return Deferred.fromCoroutine(super().stop())

    def settled(self, timeout: float | None = None) -> Deferred[None]:  # type: ignore[override]
        return Deferred.fromCoroutine(super().settled(timeout))

    def where(self) -> Deferred[list[Location]]:
        """Who is online, since when and on which worker."""

        async def where() -> list[Location]:
            return [*locations(await self._places())]

        return Deferred.fromCoroutine(where())

    def send(  # type: ignore[override]
        self, identity: Hashable, packet: AnyPacket, *, timeout: float = 5.0
    ) -> Deferred[None]:
        return Deferred.fromCoroutine(super().send(identity, packet, timeout=timeout))

    def request(  # type: ignore[override]
        self, identity: Hashable, packet: AnyPacket, *, timeout: float | None = None
    ) -> Deferred[AnyPacket]:
        return Deferred.fromCoroutine(super().request(identity, packet, timeout=timeout))

    def broadcast(self, packet: AnyPacket, group: str | None = None) -> Deferred[None]:  # type: ignore[override]
        return Deferred.fromCoroutine(super().broadcast(packet, group))

    for _function in (start, stop, settled, send, request, broadcast):
        _function.__doc__ = getattr(Member, _function.__name__).__doc__
    del _function

    # See `Threaded`.

    def _post(self, callback: Callable[[], object]) -> None:
        self._reactor.callFromThread(callback)

    def _new_pending(self) -> _Pending:
        return _Pending(self._reactor)

    async def _give_way(self) -> None:
        await deferLater(self._reactor, 0)

    async def _begin(self) -> int:
        self._trigger = self._reactor.addSystemEventTrigger("before", "shutdown", self._shut_down)
        return await super()._begin()

    async def _end(self) -> None:
        trigger, self._trigger = self._trigger, None
        if trigger is not None:
            self._reactor.removeSystemEventTrigger(trigger)
        await super()._end()

    def _shut_down(self) -> Deferred[None]:
        self._trigger = None
        return self.stop()


class _Pending:
    """See `Pending`. It fires on a turn of the reactor's own."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._deferred: Deferred[Any] = Deferred()

    def done(self, outcome: Any) -> None:
        self._reactor.callFromThread(self._fire, outcome)

    def _fire(self, outcome: Any) -> None:
        if not self._deferred.called:  # else cancelled
            self._deferred.errback(outcome) if isinstance(outcome, BaseException) else self._deferred.callback(outcome)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._deferred.__await__()
