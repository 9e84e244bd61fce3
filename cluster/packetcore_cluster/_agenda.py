"""Which keys are to be looked at or read, and what the broker is asked of them: of each key one thing at a time."""

from __future__ import annotations

from collections.abc import Callable

from packetcore import Deadlines
from packetcore_cluster._operations import Delete, Put, Read


class Agenda:
    """A connection's. Times are in seconds, and never go back."""

    def __init__(self) -> None:
        self._dirty: dict[str, None] = {}  # in order
        self._reads: dict[str, None] = {}
        self._in_flight: dict[str, Put | Delete | Read] = {}
        self._retries: Deadlines[str] = Deadlines()

    def __contains__(self, key: object) -> bool:
        """Whether something is asked of a key."""
        return key in self._in_flight

    def is_done(self, but: str) -> bool:
        """Whether nothing is left to do, and nothing asked, of other keys than one."""
        return not (self._dirty or self._reads or len(self._retries) or self._in_flight.keys() - {but})

    def look_at(self, key: str) -> None:
        """Something may be to do for a key."""
        self._dirty[key] = None

    def read(self, key: str) -> None:
        """A key is to be read, to see what is to do for it."""
        self._reads[key] = None

    def retry(self, key: str, at: float) -> None:
        """A key is to be tried again at a time."""
        self._retries.set(key, at)

    def next_retry(self) -> float | None:
        """When one is."""
        return self._retries.first()

    def due(self, now: float) -> str | None:
        """A key that is to be tried again now; `None` if there is none."""
        return self._retries.pop_due(now)

    def ask(self, operation: Put | Delete | Read) -> Put | Delete | Read:
        """Something is asked of a key."""
        self._in_flight[operation.key] = operation
        return operation

    def answered(self, operation: Put | Delete | Read) -> bool:
        """It was done, or not. Gives whether it was asked here: an answer may be for a connection before."""
        if self._in_flight.get(operation.key) is not operation:
            return False
        del self._in_flight[operation.key]
        return True

    def take(self, room: int, what: Callable[[str], Put | Delete | None]) -> list[Put | Delete | Read]:
        """What to ask now. A key of which something is asked is looked at again when that is answered.

        Args:
            room: how many at most.
            what: says it of a key that is to be looked at.
        """
        given: list[Put | Delete | Read] = []
        while self._reads and len(given) < room:
            key = next(iter(self._reads))
            del self._reads[key]
            if key not in self:
                given.append(self.ask(Read(key)))
        while self._dirty and len(given) < room:
            key = next(iter(self._dirty))
            del self._dirty[key]
            operation = None if key in self else what(key)
            if operation is not None:
                given.append(self.ask(operation))
        return given
