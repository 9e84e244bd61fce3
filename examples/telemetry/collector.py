"""From the line to the store: counts what is missing, stores in batches, and holds the line back when full."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from packetcore import Handler, Malformed, Session

from .reading import Reading, missing_between
from .store import Row, Store, StoreError

BATCH = 500
"""Readings that are stored at once, at most."""

INTERVAL = 0.5
"""Seconds after which they are stored however few they are: what a crash of this machine may cost."""

FULL = 5_000
"""Readings that wait for the store, above which nothing is read from the line; at half as many it is again."""

RETRY = 1.0
"""Seconds until a store that failed is tried again."""

logger = logging.getLogger("telemetry")


class Collector(Handler[Reading]):
    """Hears the sensor; `write`, a task, stores what it said.

    Args:
        store: where to.
        clock: gives the seconds since 1970.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self.stored = 0
        """Readings."""
        self.missing = 0
        """Readings that were lost on the way."""
        self.malformed_runs = 0
        """Frames that noise has hit, and noise between frames."""
        self.restarts = 0
        """Times that the sensor began anew."""
        self.waiting: list[Row] = []
        """What is to be stored."""
        self._store = store
        self._clock = clock
        self._last = store.last_id()
        self._session: Session[Reading] | None = None
        self._is_held_back = False
        self._has_batch = asyncio.Event()
        self._is_stopping = asyncio.Event()

    def connected(self, session: Session[Reading]) -> None:
        self._session = session
        if self._is_held_back:
            session.pause()

    def packets_received(self, session: Session[Reading], packets: list[Reading]) -> None:
        now = self._clock()
        for reading in packets:
            self._count(reading.id)
            self.waiting.append(Row(now, reading.id, reading.channel, reading.value / 1000))
        if len(self.waiting) >= BATCH:
            self._has_batch.set()
        if len(self.waiting) >= FULL:
            self._is_held_back = True
            session.pause()  # what the sensor sends now waits in the system, then in the sensor, or is lost

    def malformed(self, session: Session[Reading], malformed: Malformed) -> None:
        self.malformed_runs += 1

    async def write(self) -> None:
        """Store what comes, until `stop` and then the rest.

        Raises:
            StoreError: the rest could not be stored.
        """
        while self.waiting or not self._is_stopping.is_set():
            if len(self.waiting) < BATCH and not self._is_stopping.is_set():
                self._has_batch.clear()
                await _within(INTERVAL, self._has_batch)
            batch = self.waiting[:BATCH]
            if not batch:
                continue
            try:
                await asyncio.to_thread(self._store.append, batch)
            except StoreError as error:
                if self._is_stopping.is_set():
                    raise StoreError(f"{len(self.waiting)} readings are not stored: {error}") from error
                logger.warning("%d readings wait: %s", len(self.waiting), error)
                await _within(RETRY, self._is_stopping)
                continue
            self.stored += len(batch)
            del self.waiting[: len(batch)]
            if self._is_held_back and len(self.waiting) <= FULL // 2:
                self._is_held_back = False
                if self._session is not None:
                    self._session.resume()

    def stop(self) -> None:
        """Let `write` end."""
        self._is_stopping.set()
        self._has_batch.set()

    def _count(self, id: int) -> None:
        missing = 0 if self._last is None else missing_between(self._last, id)
        if missing is None:
            self.restarts += 1
        else:
            self.missing += missing
        self._last = id


async def _within(seconds: float, event: asyncio.Event) -> None:
    """Wait for an event, so long at most."""
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
