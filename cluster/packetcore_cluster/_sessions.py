"""The register of one worker's sessions, which claims their identities in the whole cluster."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Protocol

from packetcore import Session, SessionPool
from packetcore_cluster._keys import key_of
from packetcore_cluster._operations import Takeover


class Claims(Protocol):
    """What hears of what sessions hold. Called on the thread of the session."""

    def check(self, key: str, takeover: Takeover, /) -> None:
        """Raise `IdentityTaken` for a claim that is known to be in vain."""

    def claim(self, key: str, session: int, takeover: Takeover, /) -> None:
        """A session holds an identity from now on."""

    def release(self, key: str, session: int, /) -> None:
        """It does not any more."""

    def left(self, session: int, /) -> None:
        """A session is over."""


class ClusterSessions(SessionPool[Session[Any]]):
    """The sessions of this worker's servers, as `serve(..., sessions=)` takes it. What it finds are
    its own; `bind` holds in the whole cluster:

    - "replace" takes the identity over at once from a session here, and soon from one elsewhere, which
      ends with REPLACED.
    - "reject" raises where it is known that another session holds it, here or elsewhere. If that turns
      out later, of two that claim at the same instant, the session ends with REFUSED.

    Identities are text, whole numbers or bytes.

    Args:
        claims: what hears of them.
        timeout: see `SessionPool`, and so the others.
    """

    __slots__ = ("_claims", "runtime")

    def __init__(
        self, claims: Claims, timeout: float | None, *, max_sessions: int | None, max_per_host: int | None
    ) -> None:
        super().__init__(timeout, max_sessions=max_sessions, max_per_host=max_per_host)
        self._claims = claims
        self.runtime: Any = None
        """What the session that came last lives on, where its adapter says so."""

    def add(self, session: Session[Any], now: float, *, host: Hashable = None) -> int:
        """See `SessionPool.add`."""
        endpoint = getattr(session, "endpoint", None)  # a pool takes any object
        self.runtime = None if endpoint is None else endpoint.runtime
        return super().add(session, now, host=host)

    def bind(self, id: int, identity: Hashable, takeover: Takeover = "replace") -> Session[Any] | None:
        """See `SessionPool.bind`.

        Raises:
            IdentityTaken: as there; `IdentityTakenElsewhere` if it is a session of another worker.
            TypeError: the identity is neither text, a whole number nor bytes.
            ValueError: as there, or the identity is longer than a key may be.
            LocalProtocolError: as there, or the cluster was not entered yet, or on another thread.
        """
        if identity is None:
            return super().bind(id, identity, takeover)  # which says what is wrong
        key, before = key_of(identity), self.identity(id)
        if before == identity:
            return super().bind(id, identity, takeover)
        # What a session here holds is taken from that, and held by none elsewhere.
        self._claims.check(key, takeover if self.find(identity) is None else "replace")
        displaced = super().bind(id, identity, takeover)
        if before is not None:
            self._claims.release(key_of(before), id)
        self._claims.claim(key, id, takeover)
        return displaced

    def unbind(self, id: int) -> Hashable:
        """See `SessionPool.unbind`."""
        identity = super().unbind(id)
        if identity is not None:
            self._claims.release(key_of(identity), id)
        return identity

    def remove(self, id: int) -> Session[Any] | None:
        """See `SessionPool.remove`."""
        self.unbind(id)
        session = super().remove(id)
        if session is not None:
            self._claims.left(id)
        return session

    def expire(self, now: float) -> list[Session[Any]]:
        """See `SessionPool.expire`."""
        expired = super().expire(now)
        for session in expired:
            if session.identity is not None:
                self._claims.release(key_of(session.identity), session.id)
            self._claims.left(session.id)
        return expired
