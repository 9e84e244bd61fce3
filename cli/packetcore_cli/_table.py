"""A server and its sessions as a table of so many columns and lines, for a terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from packetcore_cli._sampler import Sampler
from packetcore_cli._seen import Row, Totals
from packetcore_cli._text import counted

ROWS = 10
"""Sessions shown at most, those that say most."""

OTHERS = 7
"""Lines that are for others than the sessions: the header, the totals, and some of what is printed above."""


def table_of(sampler: Sampler, where: str, width: int, height: int) -> RenderableType:
    """The totals, the sessions that say most, and how others ended.

    Args:
        sampler: sees them.
        where: the server listens.
        width: columns that there are.
        height: lines that there are.
    """
    totals = sampler.totals
    rows = max(1, min(ROWS, height - OTHERS))
    view = sampler.view(sort="packets", descending=True, stop=rows)
    parts: list[RenderableType] = [_headline(totals, where)]
    if view.rows:
        parts.append(_table(view.rows, width))
        if view.matched > len(view.rows):
            parts.append(Text(f"and {view.matched - len(view.rows)} more", style="dim"))
    parts.append(_ends(totals))
    return Group(*parts)


def _headline(totals: Totals, where: str) -> Text:
    packets_in, packets_out, bytes_in, bytes_out = totals.rates
    line = Text.assemble("\n", (where, "bold"), f"  {counted(totals.sessions, 'session')}")
    line.append(f"  in {_short(packets_in)}/s {_short(bytes_in)}B/s")
    line.append(f"  out {_short(packets_out)}/s {_short(bytes_out)}B/s")
    if totals.outstanding:
        line.append(f"  outstanding {_short(totals.outstanding)}B")
    if totals.malformed:
        line.append(f"  malformed {totals.malformed}", style="red")
    if not totals.is_answering:
        line.append("  the server does not answer", style="bold red")
    return line


NARROW = 26
"""Columns of text that the narrowest table takes beside the identities, and those between them."""

MIDDLING = 58
"""The same with the bytes, what is unsent, and the age."""

PEER = 23
"""The same of the peer's address."""

LEAST = 18
"""Columns of text that an identity has at least, where something else could be left out."""


def _table(rows: Sequence[Row], width: int) -> Table:
    is_middling = width >= MIDDLING + LEAST
    is_wide = width >= MIDDLING + PEER + LEAST
    left = max(1, width - (MIDDLING if is_middling else NARROW) - (PEER if is_wide else 0))
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("session", justify="right", no_wrap=True)
    table.add_column("identity" if is_wide else "identity or peer", no_wrap=True, max_width=left)
    if is_wide:
        table.add_column("peer", no_wrap=True, max_width=PEER - 2)
    table.add_column("in/s", justify="right", no_wrap=True)
    table.add_column("out/s", justify="right", no_wrap=True)
    if is_middling:
        table.add_column("B in/s", justify="right", no_wrap=True)
        table.add_column("B out/s", justify="right", no_wrap=True)
        table.add_column("unsent", justify="right", no_wrap=True)
        table.add_column("age", justify="right", no_wrap=True)
    now = time.monotonic()
    for row in rows:
        whose = (row.name, row.peer) if is_wide else (row.name or row.peer,)
        cells = [str(row.id), *whose, _short(row.packets_in), _short(row.packets_out)]
        if is_middling:
            age = "older" if row.opened is None else _duration(now - row.opened)
            cells += [_short(row.bytes_in), _short(row.bytes_out), _short(row.outstanding), age]
        table.add_row(*map(Text, cells))
    return table


def _ends(totals: Totals) -> Text:
    line = Text(f"{counted(totals.opened, 'session')} until now", style="dim")
    if totals.closed:
        ended = "  ".join(f"{reason.name} {number}" for reason, number in totals.closed.most_common())
        line.append(f", closed: {ended}")
    if totals.refused:
        line.append(f"; refused: {totals.refused}")
    return line


def _short(value: float) -> str:
    for power, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= power:
            shown = value / power
            return f"{shown:.{2 if shown < 9.995 else 1 if shown < 99.95 else 0}f}{name}"
    return f"{value:.1f}" if 0 < value < 10 and value != int(value) else f"{value:.0f}"


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 1:
        return f"{seconds:.0f} s"
    if hours < 1:
        return f"{minutes:.0f} min"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} d"
