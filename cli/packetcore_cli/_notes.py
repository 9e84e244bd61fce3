"""What happens at an endpoint, noted on its runtime's own thread, for the sampler to take. Nothing is wrapped, and no
packet passes through here."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from packetcore import Address, Endpoint, EndpointStats, Malformed, Session, Stats
from packetcore_cli._seen import Noted

MALFORMED_KEPT = 50
"""Malformed runs that are kept, the latest."""

Values = tuple[int, int, int, int, int, Hashable]
"""Of a session: packets and bytes in and out, as in `RATES`, what is outstanding, and the identity."""


class Reading(NamedTuple):
    """What the runtime's thread told."""

    past: EndpointStats
    came: list[tuple[Session[Any], float]]
    left: list[int]
    values: list[Values | None]
    """Of each session that was asked about; `None` of one that is over."""
    took: float = 0.0
    """Seconds."""


class Notes:
    """Takes notes until `close`.

    Args:
        endpoint: what the server's sessions share.
    """

    def __init__(self, endpoint: Endpoint[Any]) -> None:
        self.count = 0
        """How many malformed runs there were."""
        self._endpoint = endpoint
        self._came: deque[tuple[Session[Any], float]] = deque()
        self._left: deque[int] = deque()
        self._malformed: deque[Noted] = deque(maxlen=MALFORMED_KEPT)
        self._scratch = Stats()
        self._is_closed = False
        self._hook()

    @property
    def malformed(self) -> list[Noted]:
        """What was malformed lately, the latest first: for any thread."""
        return list(self._malformed.copy())[::-1]

    def read(self, sessions: Sequence[Session[Any]], done: Future[Reading]) -> None:
        """Tell of some sessions, and of what was noted since the last time: on the runtime's thread."""
        begun = time.perf_counter()
        scratch = self._scratch
        values: list[Values | None] = []
        try:
            for session in sessions:
                if session.is_over:
                    values.append(None)
                    continue
                scratch.packets_received = scratch.packets_sent = scratch.bytes_received = scratch.bytes_sent = 0
                session.add_to(scratch)
                values.append(
                    (
                        scratch.packets_received,
                        scratch.packets_sent,
                        scratch.bytes_received,
                        scratch.bytes_sent,
                        session.outstanding,
                        session.identity,
                    )
                )
            done.set_result(self.rest(values, time.perf_counter() - begun))
        except BaseException as error:
            done.set_exception(error)

    def own(self, done: Future[list[Session[Any]]]) -> None:
        """Tell of the sessions that there are: on the runtime's thread."""
        done.set_result(self._endpoint.own_sessions())

    def rest(self, values: list[Values | None], took: float = 0.0) -> Reading:
        """What was noted since the last time."""
        return Reading(self._endpoint.past, _taken(self._came), _taken(self._left), values, took)

    def close(self) -> None:
        """Note no more, though others may have hooked on behind this."""
        self._is_closed = True
        endpoint = self._endpoint
        if (endpoint.on_admitted, endpoint.on_finished, endpoint.on_malformed) == self._hooks:
            endpoint.on_admitted, endpoint.on_finished, endpoint.on_malformed = self._before

    def _hook(self) -> None:
        endpoint, came, left = self._endpoint, self._came, self._left
        self._before = before = endpoint.on_admitted, endpoint.on_finished, endpoint.on_malformed

        def admitted(session: Session[Any]) -> None:
            if before[0] is not None:
                before[0](session)
            if not self._is_closed:
                came.append((session, time.monotonic()))

        def finished(session: Session[Any]) -> None:
            if before[1] is not None:
                before[1](session)
            if not self._is_closed:
                left.append(session.id)

        def malformed(what: Malformed, peer: Address, session: Session[Any] | None) -> None:
            if before[2] is not None:
                before[2](what, peer, session)
            if not self._is_closed:
                self._note(what, peer, session)

        self._hooks = admitted, finished, malformed
        endpoint.on_admitted, endpoint.on_finished, endpoint.on_malformed = self._hooks

    def _note(self, malformed: Malformed, peer: Address, session: Session[Any] | None) -> None:
        self.count += 1
        id, identity = (0, None) if session is None else (session.id, session.identity)
        self._malformed.append(Noted(self.count, time.time(), id, peer, identity, malformed))


_T = TypeVar("_T")


def _taken(queue: deque[_T]) -> list[_T]:
    """All that is in a queue, which others add to."""
    return [queue.popleft() for _ in range(len(queue))]
