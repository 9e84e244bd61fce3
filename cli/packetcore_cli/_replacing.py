"""The workers replaced one after another, as SIGHUP asks for; at the first that cannot start all stays as it is."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence

from packetcore_cli._failure import reason_of
from packetcore_cli._log import log_event
from packetcore_cli._place import Place
from packetcore_cli._text import counted
from packetcore_sockets import Notifier


class Replacing:
    """One round after the other of it.

    Args:
        places: of the workers.
        notifier: tells a service manager.
    """

    def __init__(self, places: Sequence[Place], notifier: Notifier) -> None:
        self._places = places
        self._notifier = notifier
        self._left: deque[Place] = deque()
        self._is_under_way = False

    def begin(self) -> None:
        """Begin with the first; where a round is under way already, anew."""
        self._notifier.reloading()
        log_event("replacing", f"SIGHUP: replacing {counted(len(self._places), 'worker')}")
        self._left = deque(self._places)
        self._is_under_way = True

    def stop(self) -> None:
        """Replace no more."""
        self._left.clear()
        self._is_under_way = False

    def give_up(self, why: str, place: Place) -> None:
        """Replace no more, and say so."""
        self.stop()
        text = f"{why}: SIGHUP given up, the workers there are stay"
        log_event("not_replaced", text, logging.ERROR, worker=place.index)
        self._notifier.ready()

    def go_on(self) -> None:
        """Replace the next, if that of none is under way."""
        if not self._is_under_way or any(place.coming or place.leaving for place in self._places):
            return
        if any(place.current is not None and not place.current.is_serving for place in self._places):
            return  # of UDP, one that has taken over; or one that was started again
        if not self._left:
            self.stop()
            log_event("replaced", f"SIGHUP: {counted(len(self._places), 'worker')} replaced")
            self._notifier.ready()
            return
        place = self._left.popleft()
        if place.current is None:  # one will be started anyway
            return
        try:
            place.replace()
        except OSError as error:
            self.give_up(f"worker {place.index} cannot be started: {reason_of(error)}", place)
