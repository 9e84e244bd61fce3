"""Applications that are functions over a stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.task import deferLater

from packetcore import Inbox
from packetcore_twisted._reactor import clock_of
from packetcore_twisted._stream import Stream

StreamFunction = Callable[[Stream], Any]
"""An application over a stream: `async def`, or with a Deferred as its result. When it is
done, the stream is closed."""


class Functions:
    """Runs them, and knows which are running."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.running: set[Deferred[Any]] = set()

    def start(self, function: StreamFunction, inbox: Inbox) -> None:
        """Run one over the stream of a new session."""
        stream = Stream(inbox, self._reactor)
        running = Deferred.fromCoroutine(self._run(function, stream))
        self.running.add(running)
        running.addBoth(lambda _: stream.close())
        running.addBoth(lambda _: self.running.discard(running))

    async def _run(self, function: StreamFunction, stream: Stream) -> None:
        try:  # not at once: the session is in the middle of its work
            await deferLater(self._reactor, 0, maybeDeferred, function, stream)
        except CancelledError:
            pass
        except (Exception, KeyboardInterrupt, SystemExit) as failed:
            stream.session.failed(failed, clock_of(self._reactor)())
