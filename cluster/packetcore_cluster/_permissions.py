"""What a worker's user has to be allowed on the broker, and which of that it was denied.

docs/cluster.md shows the same as a configuration of the broker.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_DENIAL = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"', re.IGNORECASE)
"""How nats-server says it; its client tells it in small letters."""


class Denial(NamedTuple):
    """What a user may not do."""

    verb: str
    """"publish to" or "subscribe to"."""
    subject: str
    """As the client tells it, in small letters."""
    permission: str
    """The subject that the user has to be allowed, which may end with a wildcard."""
    is_of_directory: bool
    """Whether the directory cannot be read without."""

    def __str__(self) -> str:
        missing = f'does not let this worker {self.verb} "{self.permission}", as it has to'
        return f'{missing}: see "Who may speak to it" in docs/cluster.md'


class Permissions:
    """Those of the workers of one cluster.

    Args:
        root: what the subjects of its messages begin with.
        bucket: the directory's.
        inbox: what the subjects of answers begin with.
    """

    def __init__(self, root: str, bucket: str, inbox: str) -> None:
        stream = f"KV_{bucket}"
        requests = ("STREAM.INFO", "STREAM.CREATE", "STREAM.MSG.GET", "CONSUMER.CREATE")
        self.subscribe = (f"{root}.>", f"{inbox}.>")
        """Subjects to subscribe to."""
        self.publish = (
            *self.subscribe,
            f"$KV.{bucket}.>",
            f"$JS.FC.{stream}.>",
            *(f"$JS.API.{request}.{stream}" for request in requests),
            f"$JS.API.CONSUMER.CREATE.{stream}.>",
            f"$JS.API.CONSUMER.DELETE.{stream}.>",
        )
        """Subjects to publish to."""
        self._others = (f"{root}.".lower(), f"$kv.{bucket}.".lower())

    def denial(self, error: Exception) -> Denial | None:
        """What an error of the client's says that the user may not do; `None` if it says something else."""
        said = _DENIAL.search(str(error))
        if said is None:
            return None
        is_publishing, subject = said[1].lower() == "publish", said[2].lower()
        needed = self.publish if is_publishing else self.subscribe
        others = subject.partition(".")[0] + ".>"  # and not each by itself: answers have a subject each
        permission = next((each for each in needed if _covers(each.lower(), subject)), others)
        verb = "publish to" if is_publishing else "subscribe to"
        return Denial(verb, subject, permission, not subject.startswith(self._others))


def _covers(pattern: str, subject: str) -> bool:
    return subject == pattern or (pattern.endswith(".>") and subject.startswith(pattern[:-1]))
