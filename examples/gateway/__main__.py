"""Runs the gateway, its page, and a few devices to try it with.

python -m examples.gateway
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path

import uvicorn

from packetcore_asyncio import serve

from . import certificates
from .device import Device
from .gateway import Gateway
from .page import new_page
from .protocol import GATEWAY, PORT

DEMO_DEVICES = ("cellar-1", "cellar-2", "truck-7", "visitor")
"""Those that get a certificate where none is given; the last one is not simulated."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.gateway", description="A device gateway.")
    parser.add_argument("--host", default="127.0.0.1", help="where devices connect to (default: %(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="and its port; 0 takes a free one (%(default)s)")
    parser.add_argument("--page-port", type=int, default=8080, help="of the page, on 127.0.0.1 alone (%(default)s)")
    parser.add_argument(
        "--certificates",
        type=Path,
        metavar="FOLDER",
        help="authority.pem, gateway.pem and devices/NAME.pem; made there if the first is missing. Without this they "
        "are made for this run, and devices simulated",
    )
    parser.add_argument("--simulate", type=int, metavar="N", help="how many of the devices (3 without FOLDER, else 0)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        with ExitStack() as ending:
            folder = arguments.certificates or Path(ending.enter_context(tempfile.TemporaryDirectory()))
            if not (folder / certificates.AUTHORITY).exists():
                certificates.make(folder, DEMO_DEVICES)
            simulated = arguments.simulate
            if simulated is None:
                simulated = 0 if arguments.certificates else len(DEMO_DEVICES) - 1
            names = certificates.device_names(folder)[:simulated]
            asyncio.run(run(arguments.host, arguments.port, arguments.page_port, folder, names))
    except (ImportError, OSError, OverflowError) as error:
        sys.exit(f"gateway: {error}")
    except KeyboardInterrupt:
        pass


async def run(host: str, port: int, page_port: int, folder: Path, simulated: list[str]) -> None:
    """Serve devices and the page until SIGINT or SIGTERM. Then the devices go first, so that commands under way get
    their answer, and the page with them."""
    loop, interrupted = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(interrupted.set))
    gateway = Gateway()
    server = await serve(gateway, host, port, ssl=certificates.gateway_context(folder), config=GATEWAY)
    async with AsyncExitStack() as ending:
        ending.push_async_callback(server.close, grace=1.0)
        listener = ending.enter_context(socket.create_server(("127.0.0.1", page_port)))
        page = Page(uvicorn.Config(new_page(gateway, server), log_config=None, timeout_graceful_shutdown=1))
        serving = asyncio.create_task(page.serve(sockets=[listener]))
        serving.add_done_callback(lambda _: interrupted.set())
        print(f"devices connect to {server.address[0]}:{server.address[1]}, with a certificate of {folder}")
        print(f"the page is at http://127.0.0.1:{listener.getsockname()[1]}/ (Ctrl-C ends all)", flush=True)
        devices = [asyncio.create_task(simulate(name, server.address[1], folder)) for name in simulated]
        await interrupted.wait()
        for device in devices:
            device.cancel()
        await asyncio.gather(*devices, return_exceptions=True)
        await server.close(grace=1.0)
        page.should_exit = True
        await serving


async def simulate(name: str, port: int, folder: Path) -> None:
    """Be a device, until cancelled."""
    await Device(random.Random(name)).run("127.0.0.1", port, certificates.device_context(folder, name))


class Page(uvicorn.Server):
    """uvicorn's server, without its hold on Ctrl-C, which is the program's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


if __name__ == "__main__":
    main()
