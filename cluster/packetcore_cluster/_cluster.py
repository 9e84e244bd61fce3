"""The cluster on asyncio: both sides of a worker on one loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from threading import get_ident
from typing import Any, TypeVar

from packetcore import AnyPacket, ProtocolError
from packetcore_cluster._location import Location, locations
from packetcore_cluster._member import Member

T = TypeVar("T")

_TURN = 1000
"""Places after which other tasks have a turn."""


class Cluster(Member[AnyPacket]):
    """The sessions of many workers and machines as one register, over NATS with JetStream.

        async with Cluster("nats://127.0.0.1:4222", name="fleet") as cluster:
            server = await serve(Gateway(), host, port, sessions=cluster.sessions)
            reply = await cluster.request("meter 7", Packet(7, b"status?"), timeout=2.0)

    Each process has one, on the loop of its servers. While the broker is away sessions go on, and so
    do sends to those here; others raise `BrokerAway`. For other runtimes than asyncio there are
    `packetcore_cluster.blocking`, `packetcore_cluster.gevent` and `packetcore_cluster.twisted`.

    Args:
        url: the broker's, or those of several that are one cluster.
        name: of this cluster, one of many that the broker may have: letters, digits, `-` and `_`.
            The directory is the key-value bucket `packetcore-NAME`.
        worker: what this process is called; the host's name by default. The process id and a few
            random characters are added, since a worker that begins again is another.
        codec: how packets travel between workers; `Packet` in its frames by default. For servers
            with a `framing` it is their codec, or `Frames()` where they have none.
        is_reply: with such, whether a packet, the second, is the reply to another, the first.
        lease: how long a worker may give no sign of life before the others call it dead, in seconds. Give
            all the same.
        connect_timeout: how long the broker may take to answer at first, in seconds.
        max_sessions: see `packetcore.Config`, and so the others.
        replicas: on how many servers of a cluster of brokers the directory is kept, where this worker
            is the first and makes it.
        on_event: is told what happens, where handlers are; it is logged as well.
        options: what else `nats.connect` takes: `user_credentials`, `tls` and so on.

    Raises:
        ValueError: a name or a number is out of its range.
    """

    async def __aenter__(self) -> Cluster[AnyPacket]:
        """See `start`."""
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """See `stop`."""
        await self.stop()

    async def where(self) -> AsyncIterator[Location]:
        """Who is online, since when and on which worker: all that was known when the iteration began."""
        for number, place in enumerate(locations(await self._places())):
            if number % _TURN == _TURN - 1:
                await asyncio.sleep(0)
            yield place

    # See `Member`.

    def _new_crossing(self) -> _Here:
        return _Here()

    def _tell(self, function: Callable[..., object], *args: Any) -> None:
        function(*args)

    async def _ask(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        try:
            return await function(*args)
        except ProtocolError:  # perhaps at once
            await self._give_way()
            raise

    def _new_pending(self) -> _Pending:
        return _Pending()

    async def _give_way(self) -> None:
        await asyncio.sleep(0)

    async def _begin(self) -> int:
        return get_ident()

    async def _end(self) -> None:
        pass


class _Here:
    """No way at all: see `Crossing`."""

    def post(self, function: Callable[..., object], /, *args: object) -> None:
        function(*args)

    async def hand_over(self, function: Callable[..., object], /, *args: object) -> None:
        function(*args)


class _Pending:
    """A future of the loop: see `Pending`."""

    def __init__(self) -> None:
        self._future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def done(self, outcome: Any) -> None:
        if self._future.done():
            return
        if isinstance(outcome, Exception):
            self._future.set_exception(outcome)
        else:
            self._future.set_result(outcome)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._future.__await__()
