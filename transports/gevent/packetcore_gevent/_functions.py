"""Applications that are functions over a stream: a greenlet for each."""

from __future__ import annotations

from collections.abc import Callable

from gevent.pool import Group

from packetcore import Inbox
from packetcore_gevent._stream import Stream

StreamFunction = Callable[[Stream], object]
"""An application over a stream. When it returns, the stream is closed."""


class Functions:
    """Runs them, and knows which are running."""

    def __init__(self) -> None:
        self.running = Group()

    def start(self, function: StreamFunction, inbox: Inbox) -> None:
        """Run one over the stream of a new session."""
        self.running.spawn(Stream(inbox).run, function)
