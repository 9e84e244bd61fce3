"""What a tap is told while it runs: lines of standard input, and what is done then."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from packetcore_cli._failure import reason_of
from packetcore_cli._lines import Lines
from packetcore_tap import DIRECTIONS, Impairments, Tap

IMPAIRMENTS = tuple(field.name for field in fields(Impairments))

OF_STREAMS = ("cut", "gap", "merge")
"""Those of them that datagrams do not have."""

OF_DATAGRAMS = ("loss", "duplication")
"""Those that streams do not have."""

HELP = (
    "commands: reset, refuse, accept; stall, resume, black-hole, each alone or with to-server or to-client; "
    f"{', '.join(name.replace('_', '-') for name in IMPAIRMENTS)}, each with a value or none; clear, quit"
)

LONGEST = 1000
"""Bytes of a line that are looked at: no command has so many."""


class Commands:
    """Takes them.

    Args:
        tap: who is told.
        udp: whether it passes datagrams on.
        direction: what impairments are for: "to_server", "to_client" or "both".
        out: where the replies go.
        quit: called for `quit`.
    """

    def __init__(self, tap: Tap, udp: bool, direction: str, out: Lines, quit: Callable[[], object]) -> None:
        self._tap = tap
        self._none = OF_STREAMS if udp else OF_DATAGRAMS
        self._carrier = "UDP" if udp else "TCP"
        self._direction = direction
        self._out = out
        self._quit = quit

    def start(self) -> None:
        """Take what comes by standard input, until its end."""
        threading.Thread(target=self._run, name="packetcore-commands", daemon=True).start()

    def _run(self) -> None:
        # By the descriptor: this thread would have the lock of Python's file when the process ends.
        rest = b""
        try:
            while data := os.read(0, 4096):
                *lines, rest = (rest + data).split(b"\n")
                rest = rest[:LONGEST]
                for line in lines:
                    self._take(line)
            self._take(rest)
        except OSError as error:
            self._out.put((f"no more commands, standard input cannot be read: {reason_of(error)}", "bold"))

    def _take(self, line: bytes) -> None:
        if words := line[:LONGEST].decode(errors="replace").split():
            self._out.put((self._obey(*words), "bold"))

    def _obey(self, command: str, *args: str) -> str:
        """Do what one line says; what to reply."""
        name = command.replace("-", "_")
        try:
            if name in ("stall", "resume", "black_hole") and len(args) <= 1:
                getattr(self._tap, name)(args[0].replace("-", "_") if args else "both")
            elif name in ("reset", "refuse", "accept") and not args:
                getattr(self._tap, name)()
            elif name == "quit" and not args:
                self._quit()
            elif name == "clear" and not args:
                self._tap.to_server = self._tap.to_client = Impairments()
            elif name in IMPAIRMENTS and len(args) == 1:
                self._impair(name, args[0])
            else:
                return HELP
        except (ValueError, OSError) as error:
            return f"not done: {error}"
        return f"done: {' '.join([command, *args])}"

    def _impair(self, name: str, text: str) -> None:
        if name in self._none:
            raise ValueError(f"{self._carrier} has no {name}")
        value = getattr(Impairments(), name) if text == "none" else _number(text, is_whole=name in ("cut", "buffer"))
        for each in DIRECTIONS:
            if self._direction in (each, "both"):
                setattr(self._tap, each, replace(getattr(self._tap, each), **{name: value}))


def _number(text: str, *, is_whole: bool) -> Any:
    try:
        return int(text) if is_whole else float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not {'an integer' if is_whole else 'a number'}") from None
