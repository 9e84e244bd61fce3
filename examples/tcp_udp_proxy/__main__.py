"""Runs the proxy.

python -m examples.tcp_udp_proxy                                    with a server and devices to try it with
python -m examples.tcp_udp_proxy 0.0.0.0:5000 gateway.example:5000  between yours
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from contextlib import suppress
from urllib.parse import urlsplit

from packetcore import Config
from packetcore_asyncio import serve, serve_udp

from . import demo
from .proxy import Proxy, figures

REPORT = 5.0
"""Seconds between two lines of figures."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.tcp_udp_proxy", description="UDP devices, TCP server.")
    parser.add_argument("listen", nargs="?", type=place, help="HOST:PORT for devices, by UDP")
    parser.add_argument("server", nargs="?", type=place, help="HOST:PORT of the server, by TCP")
    parser.add_argument("--max-devices", type=int, default=10_000, help="at a time (default: %(default)s)")
    parser.add_argument("--idle", type=float, default=60.0, help="seconds of silence that end one (%(default)g)")
    arguments = parser.parse_args()
    if (arguments.listen is None) != (arguments.server is None):
        parser.error("give both places, or none")
    try:
        config = Config(
            max_sessions=arguments.max_devices,
            max_sessions_per_host=None,  # carriers hide many devices behind one address
            idle_timeout=arguments.idle,
            max_payload=64 * 1024,
        )
        asyncio.run(run(arguments.listen, arguments.server, config))
    except (OSError, OverflowError, ValueError) as error:
        sys.exit(f"proxy: {error}")
    except (KeyboardInterrupt, asyncio.CancelledError):
        pass


def place(text: str) -> tuple[str, int]:
    """HOST:PORT, and [HOST]:PORT of IPv6."""
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.port is None:  # `port` raises ValueError too
        raise ValueError
    return parts.hostname, parts.port


async def run(listen: tuple[str, int] | None, server: tuple[str, int] | None, config: Config) -> None:
    """Carry packets until SIGINT or SIGTERM comes."""
    task = asyncio.current_task()
    assert task is not None
    with suppress(NotImplementedError):  # Windows, where Ctrl-C alone ends it
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    if listen is not None and server is not None:
        await carry(listen, server, config, 0)
        return
    async with await serve(demo.service) as upstream:
        await carry(("127.0.0.1", 0), upstream.address[:2], config, 3)


async def carry(listen: tuple[str, int], server: tuple[str, int], config: Config, simulated: int) -> None:
    """Carry packets between two places, with so many simulated devices."""
    proxy = Proxy(*server, config)
    udp = await serve_udp(proxy.relay, *listen, config=config)
    host, port = udp.address[:2]
    print(f"UDP {host} port {port}, TCP {server[0]} port {server[1]} (Ctrl-C ends)", flush=True)
    devices = [asyncio.create_task(demo.device(f"meter-{number}", host, port)) for number in range(simulated)]
    try:
        while True:
            await asyncio.sleep(REPORT)
            print(figures(proxy.counts, udp.stats), flush=True)
    finally:
        for device in devices:
            device.cancel()
        await asyncio.gather(*devices, return_exceptions=True)
        await udp.close(grace=1.0)
        print(f"the end: {figures(proxy.counts, udp.stats)}", flush=True)


if __name__ == "__main__":
    main()
