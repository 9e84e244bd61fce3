"""What changes on a server, told to one page of a console after another."""

from __future__ import annotations

from typing import Any

from packetcore import Endpoint
from packetcore_cli._sampler import Sampler
from packetcore_cli.console._values import noted_told, point_told, row_told, totals_told

ROWS = 20
"""Sessions on a page of the list."""

MALFORMED_SHOWN = 12
"""Malformed runs that a page shows."""


class Feed:
    """What one page was told, and what it is to be told next."""

    def __init__(self, sampler: Sampler, endpoint: Endpoint[Any], title: str) -> None:
        self._sampler = sampler
        self._endpoint = endpoint
        self._title = title
        self._turn = -1
        self._point = 0.0
        self._noted = -1

    @property
    def has_new(self) -> bool:
        """Whether there is more."""
        return self._sampler.turn != self._turn

    def next(self, search: str, sort: str, *, descending: bool, page: int) -> dict[str, Any]:
        """The figures, what the history has had since, the sessions of a page of the list, and where there is more
        of it what was malformed."""
        sampler = self._sampler
        is_first, self._turn = self._turn < 0, sampler.turn
        told: dict[str, Any] = {"totals": totals_told(sampler.totals)}
        if is_first:
            told |= {"title": self._title, "framed": self._endpoint.is_framed}
        points = [point for point in sampler.history if point.time > self._point]
        if points:
            self._point = points[-1].time
        told["points"] = [point_told(point) for point in points]
        start = page * ROWS
        rows, matched = sampler.view(search, sort, descending=descending, start=start, stop=start + ROWS)
        told["sessions"] = {"rows": [row_told(row) for row in rows], "matched": matched, "page": page, "size": ROWS}
        noted = sampler.malformed[:MALFORMED_SHOWN]
        newest = noted[0].number if noted else 0
        if newest != self._noted:
            self._noted = newest
            told["malformed"] = [noted_told(each, is_framed=self._endpoint.is_framed) for each in noted]
        return told
