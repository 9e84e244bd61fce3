"""Runs the room, its page, and bots to play with.

python -m examples.game_room
"""

from __future__ import annotations

import argparse
import asyncio
import random
import socket
import sys

from packetcore import Config
from packetcore_asyncio import serve, serve_udp
from packetcore_sockets import WebSocketOptions

from .bot import play
from .ending import until_told
from .lobby import Lobby
from .page import serving
from .room import Room

BY_UDP = Config(idle_timeout=3.0, max_payload=1024, max_sessions=500, max_sessions_per_host=100)
"""A client that says nothing for so long has gone: one that lives answers every tick."""

BY_WEBSOCKET = Config(idle_timeout=10.0, max_payload=1024, max_outstanding=64 * 1024, max_sessions=500)
"""A browser answers pings, whatever its page does."""

PING = 3.0
SEND_BUFFER = 16 * 1024
"""Bytes that the system holds for a slow browser: what waits there is old by the time that it is seen."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.game_room", description="A game room.")
    parser.add_argument("--host", default="127.0.0.1", help="an address of this machine (default: %(default)s)")
    parser.add_argument("--page-port", type=int, default=8081, help="of the page (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=8766, help="for players, by TCP and UDP; 0 for free ones (%(default)s)"
    )
    parser.add_argument("--bots", type=int, default=2, help="(default: %(default)s)")
    arguments = parser.parse_args()
    try:
        with serving(arguments.host, arguments.page_port) as page:
            asyncio.run(until_told(run(page, arguments.host, arguments.port, arguments.bots)))
    except (ImportError, OSError, OverflowError) as error:
        sys.exit(f"game room: {error}")
    except KeyboardInterrupt:
        pass


async def run(page: str, host: str, port: int, bots: int) -> None:
    """Let them play until interrupted."""
    lobby = Lobby(Room(random.Random()))
    origins = [page, page.replace("127.0.0.1", "localhost")]
    options = WebSocketOptions(origins=origins, require_subprotocol=True, ping_interval=PING)
    listener = new_listener(host, port)
    async with (
        await serve(lobby, socket=listener, websocket=options, config=BY_WEBSOCKET) as browsers,
        await serve_udp(lobby, host, port, config=BY_UDP) as natives,
    ):
        print(f"browsers: {page}/?port={browsers.address[1]}")
        print(f"native clients: UDP {host} port {natives.address[1]} (Ctrl-C ends all)", flush=True)
        robots = [asyncio.create_task(play(f"bot {number + 1}", *natives.address[:2])) for number in range(bots)]
        try:
            await lobby.run()
        finally:
            for robot in robots:
                robot.cancel()
            await asyncio.gather(*robots, return_exceptions=True)
            await browsers.close(grace=1.0)


def new_listener(host: str, port: int) -> socket.socket:
    """A socket that listens, whose connections have a small send buffer: they inherit that."""
    listener = socket.create_server((host, port))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    return listener


if __name__ == "__main__":
    main()
