"""A server whose handler ends the program, in a process of its own.

    python -m packetcore_conformance.ending_process TRANSPORT handler|function

It prints where it listens and what the handler hears, a line each. A packet with id 7 has the
handler, or the function over a stream, raise `SystemExit`. It ends when standard input does.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from packetcore import CloseReason, Handler, Packet, Session, load_driver


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Ends(Handler):
    """Ends the program when it is told to."""

    def connected(self, session: Session) -> None:
        say(f"connected {session.id}")

    def packet_received(self, session: Session, packet: Packet) -> None:
        if packet.id == 7:
            raise SystemExit(7)
        session.send(packet)

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        say(f"disconnected {session.id} {reason.name}")


def function_of(kind: str) -> Any:
    """A function over a stream in the manner of the runtime."""

    async def awaited(stream: Any) -> None:
        async for packet in stream:
            check(packet)
            await stream.send(packet)

    def waiting(stream: Any) -> None:
        for packet in stream:
            check(packet)
            stream.send(packet)

    def check(packet: Packet) -> None:
        if packet.id == 7:
            raise SystemExit(7)

    return lambda stream: (awaited if hasattr(stream, "__aiter__") else waiting)(stream)


def main() -> None:
    """Serve until standard input ends; whatever became of the server."""
    transport, kind = sys.argv[1:]
    driver = load_driver(transport)
    start: Any = driver.start_server
    server = start(Ends() if kind == "handler" else function_of(kind))
    say("{} {}".format(*server.address))
    sys.stdin.read()
    os._exit(0)  # the runtime may have ended in the middle of its work


if __name__ == "__main__":
    main()
