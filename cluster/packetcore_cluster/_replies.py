"""Answers to what was published, each to whom it is for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Replies(Generic[T]):
    """Who waits for what, by the subject that the answer comes to.

    One subscription serves all, where the client library's `request` makes a timer, a task's wait and random
    names for each.

    Args:
        inbox: the subject before the number of each.
    """

    def __init__(self, inbox: str) -> None:
        self.subject = f"{inbox}.*"
        """What to subscribe to."""
        self._prefix = f"{inbox}."
        self._waiting: dict[str, Callable[[T | None], object]] = {}
        self._count = 0

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def expect(self, done: Callable[[T | None], object]) -> str:
        """Wait for one answer. Gives the subject that it is to come to. `done` is called once, with
        the answer, or with `None` where the connection was lost before it came."""
        self._count += 1
        subject = f"{self._prefix}{self._count}"
        self._waiting[subject] = done
        return subject

    def forget(self, subject: str) -> None:
        """Wait no longer."""
        self._waiting.pop(subject, None)

    def take(self, subject: str, answer: T) -> None:
        """An answer has come. One that nobody waits for is dropped."""
        done = self._waiting.pop(subject, None)
        if done is not None:
            done(answer)

    def lose(self) -> None:
        """The connection is lost: none of them will come."""
        waiting, self._waiting = self._waiting, {}
        for done in waiting.values():
            done(None)
