"""The cluster on runtimes that are not asyncio: the node on a thread of its own, the home where the sessions are."""

from __future__ import annotations

import atexit
import threading
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from packetcore import AnyPacket
from packetcore_cluster._background import Background, Gate
from packetcore_cluster._location import Location, locations
from packetcore_cluster._member import Member

T = TypeVar("T")

Waiting = Coroutine[Any, Any, T]


class Threaded(Member[AnyPacket]):
    """What facades for such runtimes stand on: they say how a caller waits (`_new_pending`), and how to reach the
    thread of the sessions (`_post`)."""

    @abstractmethod
    def _post(self, callback: Callable[[], object]) -> None:
        """Call something on the thread of the sessions, in order: from any thread."""

    def _start_thread(self, function: Callable[[], None]) -> None:
        """Run a function on a thread that the end of the program does not wait for."""
        threading.Thread(target=function, name="packetcore-cluster", daemon=True).start()

    def _new_crossing(self) -> Gate:
        self._background = Background(self._start_thread)
        return Gate(self._post)

    def _tell(self, function: Callable[..., object], *args: Any) -> None:
        self._background.tell(function, *args)

    async def _ask(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        pending = self._new_pending()
        cancel = self._background.ask(function, args, pending.done)
        try:
            result: T = await pending
        except BaseException:
            cancel()
            raise
        return result

    async def _begin(self) -> int:
        ready = self._new_pending()
        self._background.begin(ready.done)
        await ready
        return 0

    async def _end(self) -> None:
        over = self._new_pending()
        self._background.end(over.done)
        await over


class Sync(Threaded[AnyPacket]):
    """The manner of runtimes whose calls block a thread or a greenlet: to await a `Pending` of theirs blocks, so that
    a coroutine is over once it is begun."""

    def __enter__(self: S) -> S:
        """See `start`."""
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """See `stop`."""
        self.stop()

    def start(self) -> None:  # type: ignore[override]
        _finish(super().start())

    def stop(self) -> None:  # type: ignore[override]
        _finish(super().stop())

    def settled(self, timeout: float | None = None) -> None:  # type: ignore[override]
        _finish(super().settled(timeout))

    def where(self) -> Iterator[Location]:
        """Who is online, since when and on which worker: all that was known when this was called."""
        return locations(_finish(self._places()))

    def send(self, identity: Any, packet: AnyPacket, *, timeout: float = 5.0) -> None:  # type: ignore[override]
        _finish(super().send(identity, packet, timeout=timeout))

    def request(  # type: ignore[override]
        self, identity: Any, packet: AnyPacket, *, timeout: float | None = None
    ) -> AnyPacket:
        return _finish(super().request(identity, packet, timeout=timeout))

    def broadcast(self, packet: AnyPacket, group: str | None = None) -> None:  # type: ignore[override]
        _finish(super().broadcast(packet, group))

    for _function in (start, stop, settled, send, request, broadcast):
        _function.__doc__ = getattr(Member, _function.__name__).__doc__
    del _function

    async def _begin(self) -> int:
        atexit.register(self.stop)  # a program that ends says goodbye
        return await super()._begin()

    async def _end(self) -> None:
        atexit.unregister(self.stop)
        await super()._end()


S = TypeVar("S", bound=Sync[Any])


def _finish(coroutine: Waiting[T]) -> T:
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError("a cluster whose calls block waited for something else")
