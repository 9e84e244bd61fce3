"""`packetcore demo`: what a newcomer sees first."""

from __future__ import annotations

import time

from packetcore_cli._demo_client import show_a_client_that_comes_back
from packetcore_cli._demo_tcp import TCPScenes
from packetcore_cli._demo_udp import UDPScenes
from packetcore_cli._drivers import running_driver
from packetcore_cli._failure import Failure, reason_of
from packetcore_cli._stage import INDENT, Stage
from packetcore_cli._terminal import Terminal

NEXT = (
    "serve --port 7000 --echo",
    "send 127.0.0.1 7000 --id 0x10 --data hello",
    "decode fe001000000100000007010304fd0101fd0202fe",
)
"""What to try after the demo."""


def demo(transport: str, out: Terminal) -> int:
    """Show the demo on a transport."""
    begun = time.monotonic()
    with running_driver(transport) as driver:
        offers = driver.capabilities()
        out.line(("packetcore", "bold"), f" on {transport} ({', '.join(sorted(offers))})")
        stage = Stage(driver, out)
        try:
            TCPScenes(stage).show()
            if "reconnect" in offers:
                show_a_client_that_comes_back(stage)
            if "udp" in offers:
                UDPScenes(stage).show()
        except OSError as error:
            raise Failure(f"demo: {reason_of(error)}") from None
    out.line()
    out.line(("Done", "bold green"), f" in {time.monotonic() - begun:.1f} s. Go on with:")
    for command in NEXT:
        out.line(INDENT, "packetcore ", command)
    return 0
