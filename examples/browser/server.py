"""A browser talks packets with a server: the page by HTTP of the standard library, the packets by WebSocket.

    python examples/browser/server.py [PAGE_PORT [PACKET_PORT]]

Open the address that it prints. The page sends what is typed, and the server answers in capitals. Only this
page may connect: another's script would get a 403.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from packetcore import Handler, Packet, Session
from packetcore_asyncio import serve
from packetcore_sockets import WebSocketOptions


class Capitals(Handler):
    """Answers every packet with its text in capitals."""

    def packet_received(self, session: Session, packet: Packet) -> None:
        text = packet.payload.decode(errors="replace").upper()
        session.send(Packet(packet.id, text.encode(), type=packet.type))


class Page(SimpleHTTPRequestHandler):
    """Serves this folder, and keeps no log."""

    def log_message(self, format: str, *args: object) -> None: ...


async def main(page_port: int = 8080, packet_port: int = 8765) -> None:
    folder = str(Path(__file__).parent)
    with ThreadingHTTPServer(("127.0.0.1", page_port), partial(Page, directory=folder)) as pages:
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        page = f"http://127.0.0.1:{pages.server_port}"
        options = WebSocketOptions(origins=[page], require_subprotocol=True)
        async with await serve(Capitals(), port=packet_port, websocket=options) as server:
            print(f"{page}/?port={server.address[1]}", flush=True)
            await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main(*map(int, sys.argv[1:])))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
