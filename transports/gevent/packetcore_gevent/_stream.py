"""A session as a greenlet sees it: wait for what comes, wait for room for what goes."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from gevent import Timeout
from gevent.event import Event
from gevent.queue import Queue

from packetcore import Inbox, Packet, Reply, SyncStream


class Stream(SyncStream):
    """One conversation, to be used from greenlets of its own thread. `gevent.Timeout` can end
    any wait; that neither loses what comes nor unsends what was sent."""

    def __init__(self, inbox: Inbox) -> None:
        self._changed = Event()
        super().__init__(inbox, self._changed.set, monotonic)

    def request(
        self,
        packet: Packet | bytes | bytearray | memoryview,
        *,
        type: int | None = None,
        match: Callable[[Reply], bool] | None = None,
        timeout: float | None = None,
        wait: bool = False,
    ) -> Reply:
        """Send a packet and wait for its reply, which `recv` then does not give. Any number of
        greenlets may do so at once.

        Args:
            packet: what to ask, or its payload alone: then an id is picked that no request has.
            type: of a packet made of a payload; 0 if not given.
            match: which packet is the reply; by default the next one of the same id.
            timeout: how long to wait, in seconds; `None` for ever.
            wait: whether to wait until its id is free, rather than raise `RequestPending`.

        Raises:
            RequestPending: another request has the id, or was given up with it and the reply
                may come yet; see `Config.request_hold`.
            SessionClosed: the conversation is closing or closed.
            LocalProtocolError: the payload exceeds `max_payload`.
            TimeoutError: no reply came in time.
        """
        replies: Queue[Reply | Exception] = Queue()
        request = self.session.request(packet, replies.put, type=type, match=match, timeout=timeout, wait=wait)
        try:
            reply = replies.get()
        finally:
            self.session.forget(request)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _wait(self, attempt: Callable[[], Any], timeout: float | None) -> Any:
        limit = Timeout(timeout)
        try:
            with limit:
                while (result := attempt()) is None:
                    self._changed.clear()  # whoever else waits was told, if it has not run yet
                    self._changed.wait()
                return result
        except Timeout as expired:
            if expired is not limit:
                raise
            return attempt()

    def run(self, function: Callable[[Any], object]) -> None:
        def run(stream: Any) -> None:
            try:
                function(stream)
            except Timeout as expired:  # a mistake like any other, but no Exception
                raise TimeoutError(f"not done after {expired}") from expired

        super().run(run)
