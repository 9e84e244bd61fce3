"""What people look at while `packetcore serve` runs: the table in a terminal, and the console in a browser."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from packetcore import ServerBase
from packetcore_cli._failure import Failure, reason_of
from packetcore_cli._lines import Lines
from packetcore_cli._live import LiveTerminal
from packetcore_cli._log import log_event
from packetcore_cli._printed import prints_to
from packetcore_cli._sampler import Sampler
from packetcore_cli._terminal import Terminal
from packetcore_cli._text import address_text


def live_terminal(args: argparse.Namespace, out: Terminal, told: ExitStack) -> LiveTerminal | None:
    """Standard output with a table below its lines, which stays there in the end of a stack; `None` where somebody
    wants plain lines, or where no person looks at it."""
    wants_lines = args.plain or args.log is not None or args.as_worker is not None
    if wants_lines or not out.is_terminal or out.file is None:
        return None
    live = LiveTerminal(out.file)
    told.callback(live.stop)
    return live


@contextmanager
def watched_by_people(
    args: argparse.Namespace, server: ServerBase[Any], live: LiveTerminal | None, printed: Lines, err: Terminal
) -> Iterator[str | None]:
    """Show a server to whom it may concern until the end of the block.

    Args:
        args: the command line.
        server: listens.
        live: what `live_terminal` gave.
        printed: standard output.
        err: standard error, which may be the same terminal.

    Returns:
        The URL of the console, if there is one. It belongs on standard output and not into the log, which others
        read: who has it can send to devices.

    Raises:
        Failure: aiohttp is missing, or the address of the console cannot be listened on.
    """
    if live is None and args.console is None:
        yield None
        return
    with ExitStack() as shown:
        sampler = shown.enter_context(Sampler(server.endpoint))
        url = None if args.console is None else _console(args, server, sampler, shown)
        if live is not None:
            names = ("stdout", "stderr") if err is live else ("stdout",)
            shown.enter_context(prints_to(printed, *names))
            live.show(sampler, ", ".join(map(address_text, server.addresses)))
        yield url


def _console(args: argparse.Namespace, server: ServerBase[Any], sampler: Sampler, shown: ExitStack) -> str:
    try:
        from packetcore_cli.console import Console
    except ImportError:
        raise Failure("--console needs aiohttp: pip install 'packetcore-cli[console]'") from None
    host, port = args.console
    try:
        console = shown.enter_context(Console(server, port, host=host, sampler=sampler))
    except (OSError, UnicodeError) as error:
        raise Failure(f"cannot serve a console on {address_text((host, port))}: {reason_of(error)}") from None
    if not console.is_on_loopback:
        where = address_text(console.address)
        text = f"the console on {where} is not encrypted: whoever sees its traffic can use it"
        log_event("console", text, logging.WARNING, address=where)
    return console.url
