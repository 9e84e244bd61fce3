"""`packetcore completion`: what completes commands, options, their values and files in a shell, by shtab."""

from __future__ import annotations

from typing import Any

import shtab

from packetcore import installed_transports
from packetcore_cli._arguments import Parser
from packetcore_cli._framings import NAMES
from packetcore_cli._parser import new_parser
from packetcore_cli._terminal import Terminal

FILES = ("FILE", "HEX|FILE|-", "OTHER", "OUT")
"""How arguments that are files are called in --help."""


def complete(shell: str, out: Terminal) -> int:
    """Print it."""
    for line in completion(shell).splitlines():
        out.line(line)
    return 0


def completion(shell: str) -> str:
    """What a shell is to read: "bash", "zsh" or "fish"."""
    parser = new_parser()
    values = {
        "framing": [name for name in NAMES.split(", ") if ":" not in name],
        "transport": list(installed_transports()),
        "direction": ["to-server", "to-client", "both"],
    }
    for command in parser.commands().values():
        _describe(command, values)
    text: str = shtab.complete(parser, shell=shell)
    return text


def _describe(command: Parser, values: dict[str, list[str]]) -> None:
    """Say of a command's arguments what they can be."""
    for action in command.actions():
        described: Any = action
        if action.metavar in FILES:
            described.complete = shtab.FILE
        elif action.dest in values:
            described.choices = values[action.dest]
