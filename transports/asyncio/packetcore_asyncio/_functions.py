"""Applications that are functions over a stream: a task for each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from packetcore import Inbox
from packetcore_asyncio._stream import Stream

StreamFunction = Callable[[Stream], Awaitable[object]]
"""An application over a stream. When it returns, the stream is closed."""


class Functions:
    """Runs them, and knows which are running."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.running: set[asyncio.Task[None]] = set()

    def start(self, function: StreamFunction, inbox: Inbox) -> None:
        """Run one over the stream of a new session."""
        task = self._loop.create_task(self._run(function, Stream(inbox, self._loop)))
        self.running.add(task)
        task.add_done_callback(self.running.discard)

    async def _run(self, function: StreamFunction, stream: Stream) -> None:
        try:
            await function(stream)
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            stream.session.failed(error, self._loop.time())
        finally:
            await stream.close()
