"""Which sessions of this worker are in which group."""

from __future__ import annotations


class Groups:
    """Sets of session ids by the name of the group."""

    def __init__(self) -> None:
        self._members: dict[str, set[int]] = {}
        self._joined: dict[int, set[str]] = {}

    def join(self, session: int, group: str) -> bool:
        """A session is in a group from now on. Gives whether the group had none before."""
        is_new = group not in self._members
        self._members.setdefault(group, set()).add(session)
        self._joined.setdefault(session, set()).add(group)
        return is_new

    def leave(self, session: int, group: str) -> bool:
        """It is not any more. Does nothing if it was not. Gives whether the group has none left now."""
        if group not in self._joined.get(session, ()):
            return False
        self._joined[session].discard(group)
        self._members[group].discard(session)
        if not self._joined[session]:
            del self._joined[session]
        if self._members[group]:
            return False
        del self._members[group]
        return True

    def left(self, session: int) -> bool:
        """A session is over. Gives whether a group has none left now."""
        gone = [self.leave(session, group) for group in [*self._joined.get(session, ())]]
        return any(gone)

    def members(self, group: str) -> list[int]:
        """The sessions of a group."""
        return [*self._members.get(group, ())]

    def names(self) -> set[str]:
        """The groups that have any."""
        return {*self._members}
