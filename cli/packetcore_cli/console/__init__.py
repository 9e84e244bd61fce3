"""A web page for whoever runs a server: its sessions, what passes through them, and a hand to send and close.

    async with await serve(Gateway(), "0.0.0.0", 5000) as server:
        print(Console(server, 8080).url)

Needs aiohttp: the extra `console` of packetcore-cli.
"""

from packetcore_cli.console._console import Console

__all__ = ["Console"]
