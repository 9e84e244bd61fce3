"""Which sessions of this worker are in which group."""

from __future__ import annotations


class Groups:
    """Sets of session ids by the name of the group."""

    def __init__(self) -> None:
        self._members: dict[str, set[int]] = {}
        self._joined: dict[int, set[str]] = {}

    def join(self, session: int, group: str) -> None:
        """A session is in a group from now on."""
        self._members.setdefault(group, set()).add(session)
        self._joined.setdefault(session, set()).add(group)

    def leave(self, session: int, group: str) -> None:
        """It is not any more. Does nothing if it was not."""
        if group in self._joined.get(session, ()):
            self._joined[session].discard(group)
            self._members[group].discard(session)
            if not self._members[group]:
                del self._members[group]
            if not self._joined[session]:
                del self._joined[session]

    def left(self, session: int) -> bool:
        """A session is over. Gives whether it was in any."""
        joined = [*self._joined.get(session, ())]
        for group in joined:
            self.leave(session, group)
        return bool(joined)

    def members(self, group: str) -> list[int]:
        """The sessions of a group."""
        return [*self._members.get(group, ())]

    def names(self) -> set[str]:
        """The groups that have any."""
        return {*self._members}
