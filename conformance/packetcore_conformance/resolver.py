"""A resolver that knows a made-up name, and answers when a case wants it to."""

from __future__ import annotations

import _socket
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from packetcore_conformance.peer import DEADLINE

NAME = "meters.example"


class Resolver:
    """Stands in for the system's, below everything that runtimes ask in Python.

    Args:
        hosts: the addresses of `NAME`.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *hosts: str) -> None:
        self._hosts = hosts
        self._real: Callable[..., list[Any]] = _socket.getaddrinfo
        self._changed = threading.Condition()
        self.asked = 0
        """How many have asked for the name."""
        self.answers = threading.Event()
        """Set once they are to get an answer."""
        monkeypatch.setattr(_socket, "getaddrinfo", self.resolve)

    def resolve(self, host: Any, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
        """As `socket.getaddrinfo`."""
        if host not in (NAME, NAME.encode()):
            return self._real(host, port, *args, **kwargs)
        if (kwargs.get("flags") or (args[3] if len(args) > 3 else 0)) & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "it is a name")  # trio asks that on the loop, first
        with self._changed:
            self.asked += 1
            self._changed.notify_all()
        if not self.answers.wait(2 * DEADLINE):
            raise socket.gaierror(socket.EAI_AGAIN, "no answer came")
        return [info for one in self._hosts for info in self._real(one, port, *args, **kwargs)]

    def wait(self, has_failed: Callable[[], bool]) -> None:
        """Wait until somebody has asked.

        A runtime may have a resolver of its own, as uvloop has, which knows no made-up name: then
        the case is skipped.

        Args:
            has_failed: whether what is to ask has given up.
        """
        deadline = time.monotonic() + DEADLINE
        with self._changed:
            while not self._changed.wait_for(lambda: self.asked, 0.01):
                if has_failed():
                    pytest.skip("the runtime has a resolver of its own")
                assert time.monotonic() < deadline, f"no look-up has begun within {DEADLINE} s"
