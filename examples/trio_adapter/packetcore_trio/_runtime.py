"""What the core is told of the run that its sessions live in."""

from __future__ import annotations

import trio

from packetcore import Endpoint


def tie(endpoint: Endpoint, nursery: trio.Nursery) -> None:
    """Let `call_soon` reach the sessions of an endpoint from any thread, and have what ends the
    program come out of the nursery that they run in."""
    endpoint.runs_by(trio.lowlevel.current_trio_token().run_sync_soon)
    endpoint.on_ended = lambda error: nursery.start_soon(_raise, error)


async def _raise(error: BaseException) -> None:
    raise error
