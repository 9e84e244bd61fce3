"""A session with Deferreds: for what comes, and for room for what goes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred, succeed

from packetcore import AnyItem, AsyncEvent, AsyncStream, Inbox
from packetcore_twisted._waiting import Done, deferred

_request = deferred(AsyncStream.request)  # apart, where a type checker keeps its overloads


class Stream(AsyncStream[AnyItem]):
    """One conversation, to be used on its reactor's thread. Methods give Deferreds.

    In a coroutine, `async for packet in stream` ends when the conversation ends cleanly and
    raises `packetcore.SessionClosed` when it breaks; `async with` closes it.
    """

    send_message = deferred(AsyncStream.send_message)  # type: ignore[assignment]
    drain = deferred(AsyncStream.drain)  # type: ignore[assignment]
    request = _request  # type: ignore[assignment]
    close = deferred(AsyncStream.close)  # type: ignore[assignment]

    def __init__(self, inbox: Inbox[AnyItem], clock: Callable[[], float], new_event: Callable[[], AsyncEvent]) -> None:
        super().__init__(inbox, clock, new_event, Done if type(self).send is Stream.send else None)

    def send(self, item: AnyItem) -> Deferred[None]:  # type: ignore[override]
        """See `packetcore.AsyncStream`."""
        return Deferred.fromCoroutine(super().send(item))  # of a stream of this class, where there was no room at once

    def recv(self) -> Deferred[AnyItem]:  # type: ignore[override]
        """See `packetcore.AsyncStream`."""
        try:
            item = self.recv_nowait()
        except Exception:
            return fail()
        return Deferred.fromCoroutine(super().recv()) if item is None else succeed(item)

    async def run(self, function: StreamFunction[AnyItem]) -> None:
        """See `packetcore.AsyncStream`."""

        async def run(stream: Stream[AnyItem]) -> None:
            with suppress(CancelledError):  # which is an `Exception` here
                await maybeDeferred(function, stream)

        await super().run(run)


StreamFunction = Callable[[Stream[AnyItem]], Any]
"""An application over a stream: `async def`, or with a Deferred as its result. When it is
done, the stream is closed."""
