"""The server's register of sessions: ids, identities, caps and idleness.

It decides which id a session gets, whether there is room for it, which one holds an
identity and which have been silent too long. It never looks into a session, so any
object will do, and it never closes one: it hands back what it let go of.

Sessions stand in the order of their last refresh, which `Order` keeps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from typing import Literal, TypeVar

from packetcore._errors import IdentityTaken, LocalProtocolError, PoolFull
from packetcore._implementation import Order
from packetcore._order import Entry
from packetcore._reasons import Refusal

T = TypeVar("T")


class SessionPool(Order[T]):
    """Sessions by id and by identity, in the order of their last sign of life.

    Times are seconds since any epoch, supplied by the caller; one before a time given
    earlier counts as that earlier one.

    Args:
        timeout: how long after its last refresh a session expires, in seconds; `None`
            for never.
        max_sessions: how many it holds at a time; `None` for no limit.
        max_per_host: how many of them may be of one host; `None` for no limit.

    Raises:
        ValueError: one of them is too small.
    """

    __slots__ = ("_by_host", "_by_identity", "max_per_host", "max_sessions", "timeout")

    def __init__(
        self, timeout: float | None = 60.0, *, max_sessions: int | None = None, max_per_host: int | None = None
    ) -> None:
        for name, value in (("timeout", timeout), ("max_sessions", max_sessions), ("max_per_host", max_per_host)):
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value} must be above 0, or None for no limit")
        super().__init__()
        self.timeout = timeout
        self.max_sessions = max_sessions
        self.max_per_host = max_per_host
        self._by_identity: dict[Hashable, int] = {}
        self._by_host: Counter[Hashable] = Counter()

    def __iter__(self) -> Iterator[T]:
        """The sessions held when the iteration begins, the longest silent first; it may
        be changed meanwhile."""
        return iter([entry.session for entry in self._entries()])

    def add(self, session: T, now: float, *, host: Hashable = None) -> int:
        """Insert a session and give it the next id: 1, 2, 3 and so on, never one twice.

        Args:
            session: any object.
            now: counts as its first refresh.
            host: where it comes from, for `max_per_host`; `None` is not counted.

        Raises:
            PoolFull: a cap is reached; nothing was inserted.
        """
        if (refusal := self.refusal(host)) is not None:
            raise PoolFull(self.explain(refusal, host), refusal)
        if host is not None:
            self._by_host[host] += 1
        return self._put(Entry(session, host), now)

    def refusal(self, host: Hashable = None) -> Refusal | None:
        """Why `add` would raise for a session of this host; `None` where there is room."""
        if self.max_sessions is not None and len(self) >= self.max_sessions:
            return Refusal.MAX_SESSIONS
        if self.max_per_host is not None and host is not None and self._by_host[host] >= self.max_per_host:
            return Refusal.MAX_SESSIONS_PER_HOST
        return None

    def explain(self, refusal: Refusal, host: Hashable = None) -> str:
        """What a `refusal` means, with the figures."""
        if refusal is Refusal.MAX_SESSIONS:
            return f"{len(self)} sessions reach max_sessions={self.max_sessions}"
        if refusal is Refusal.MAX_SESSIONS_PER_HOST:
            return f"{self._by_host[host]} sessions of {host!r} reach max_per_host={self.max_per_host}"
        return str(refusal.value)

    def get(self, id: int) -> T | None:
        """The session with this id; `None` once it has gone."""
        entry = self._entry(id)
        return None if entry is None else entry.session

    def find(self, identity: Hashable) -> T | None:
        """The session that holds this identity; `None` if none does."""
        id = self._by_identity.get(identity)
        return None if id is None else self.get(id)

    def bind(self, id: int, identity: Hashable, takeover: Literal["replace", "reject"] = "replace") -> T | None:
        """Let a session hold an identity, in place of the one it held before.

        Args:
            id: the session.
            identity: a device's name or number; any hashable but `None`.
            takeover: what happens when another session holds it: "replace" takes it
                from that session, "reject" raises.

        Returns:
            The session it was taken from, which is still in the pool: close it.

        Raises:
            IdentityTaken: another session holds it and `takeover` is "reject".
            LocalProtocolError: there is no such session.
            ValueError: `identity` is `None`, or `takeover` is neither word.
        """
        if identity is None or takeover not in ("replace", "reject"):
            raise ValueError(f'identity={identity!r} must not be None, takeover={takeover!r} "replace" or "reject"')
        entry = self._entry(id)
        if entry is None:
            raise LocalProtocolError(f"session {id} is not in the pool")
        holder = self._by_identity.get(identity)
        if holder == id:
            return None
        displaced: T | None = None
        if holder is not None:
            if takeover == "reject":
                raise IdentityTaken(identity, holder)
            other = self._entry(holder)
            assert other is not None
            other.identity = None
            displaced = other.session
        if entry.identity is not None:
            del self._by_identity[entry.identity]
        entry.identity = identity
        self._by_identity[identity] = id
        return displaced

    def unbind(self, id: int) -> Hashable:
        """Let a session's identity go, and keep the session. Gives what it was; `None` if it held
        none or is not there."""
        entry = self._entry(id)
        if entry is None or entry.identity is None:
            return None
        identity, entry.identity = entry.identity, None
        del self._by_identity[identity]
        return identity

    def identity(self, id: int) -> Hashable:
        """The identity that a session holds; `None` if it holds none or is not there."""
        entry = self._entry(id)
        return None if entry is None else entry.identity

    def remove(self, id: int) -> T | None:
        """Let a session go, its identity too. Returns it; `None` if it had gone before."""
        entry = self._take(id)
        return None if entry is None else self._gone(entry)

    def oldest(self) -> T | None:
        """The session that has been silent longest; `None` in an empty pool."""
        entry = self._first()
        return None if entry is None else entry.session

    def next_deadline(self) -> float | None:
        """When the first session expires; `None` in an empty pool or one without timeout."""
        since = self._since()
        return None if since is None or self.timeout is None else since + self.timeout

    def expire(self, now: float) -> list[T]:
        """Let go of every session whose time is over, and touch no other.

        Returns:
            Them, the longest silent first.
        """
        now = self._advance(now)
        expired: list[T] = []
        while self.timeout is not None and (entry := self._take_silent(self.timeout, now)) is not None:
            expired.append(self._gone(entry))
        return expired

    def _gone(self, entry: Entry[T]) -> T:
        if entry.identity is not None:
            del self._by_identity[entry.identity]
        if entry.host is not None:
            if left := self._by_host[entry.host] - 1:
                self._by_host[entry.host] = left
            else:
                del self._by_host[entry.host]
        return entry.session
