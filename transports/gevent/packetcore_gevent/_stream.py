"""A stream whose functions may end with a `gevent.Timeout`."""

from __future__ import annotations

from collections.abc import Callable

import gevent

from packetcore import AnyItem, SyncStream


class Stream(SyncStream[AnyItem]):
    """One conversation, to be used from greenlets of its own thread. `gevent.Timeout` can end
    any wait; that neither loses what comes nor unsends what was sent."""

    def run(self, function: Callable[[Stream[AnyItem]], object]) -> None:
        """See `packetcore.SyncStream`."""

        def run(stream: Stream[AnyItem]) -> None:
            try:
                function(stream)
            except gevent.Timeout as expired:  # a mistake like any other, but no Exception
                raise TimeoutError(f"not done after {expired}") from expired

        super().run(run)
