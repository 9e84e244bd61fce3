"""Applications that are functions over a stream: a thread for each."""

from __future__ import annotations

import threading
from collections.abc import Callable

from packetcore import Inbox
from packetcore_blocking._loop import Loop
from packetcore_blocking._stream import Stream

StreamFunction = Callable[[Stream], object]
"""An application over a stream. When it returns, the stream is closed."""


class Functions:
    """Runs them, and knows which are running.

    Args:
        changed: of the loop's lock; notified when one has ended.
    """

    def __init__(self, loop: Loop, changed: threading.Condition) -> None:
        self._loop = loop
        self._changed = changed
        self._running: set[threading.Thread] = set()

    @property
    def are_over(self) -> bool:
        """Whether none runs, save one that asks this."""
        return not self._running - {threading.current_thread()}

    def start(self, function: StreamFunction, inbox: Inbox) -> None:
        """Run one over the stream of a new session."""
        stream = Stream(inbox, self._loop)
        name = f"packetcore-session-{stream.session.id}"
        thread = threading.Thread(target=self._run, args=(function, stream), name=name, daemon=True)
        thread.start()  # its first step in the stream waits for the lock
        self._running.add(thread)

    def _run(self, function: StreamFunction, stream: Stream) -> None:
        try:
            stream.run(function)
        finally:
            with self._loop:
                self._running.discard(threading.current_thread())
                self._loop.notify(self._changed)
