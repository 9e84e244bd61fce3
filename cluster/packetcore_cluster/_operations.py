"""What the register asks of the broker, and of the sessions of its worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(slots=True, eq=False)
class Watch:
    """Begin to watch the directory, from all that stands there now; answer with `watching`, then
    `entry` for each, then `synced`, and `entry` for each change from then on. A watch before it ends."""


@dataclass(slots=True, eq=False)
class Put:
    """Give a key a value; answer with `done`, `conflicted` or `failed`."""

    key: str
    value: bytes
    expected: int | None
    """Only if the last revision of the key is this one, which is 0 for a key that is not there;
    `None` for any."""


@dataclass(slots=True, eq=False)
class Delete:
    """Delete a key; answer as to `Put`."""

    key: str
    expected: int | None


@dataclass(slots=True, eq=False)
class Read:
    """Read a key's last revision where the broker is surest of it; answer with `read` or `failed`."""

    key: str


Takeover: TypeAlias = Literal["replace", "reject"]
"""What becomes of a claim to an identity that another session holds: see `SessionPool.bind`."""

Operation: TypeAlias = Watch | Put | Delete | Read


@dataclass(frozen=True, slots=True)
class Ending:
    """A session of this worker has to end: close it with REPLACED, or abort it with REFUSED."""

    key: str
    session: int
    reason: Literal["replaced", "refused"]
