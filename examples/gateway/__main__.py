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
from contextlib import ExitStack
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
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
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
    """Serve devices and the page, until interrupted."""
    gateway = Gateway()
    server = await serve(gateway, host, port, ssl=certificates.gateway_context(folder), config=GATEWAY)
    devices: list[asyncio.Task[None]] = []
    try:
        with socket.create_server(("127.0.0.1", page_port)) as listener:
            print(f"devices connect to {server.address[0]}:{server.address[1]}, with a certificate of {folder}")
            print(f"the page is at http://127.0.0.1:{listener.getsockname()[1]}/ (Ctrl-C ends all)", flush=True)
            for name in simulated:
                context = certificates.device_context(folder, name)
                device = Device(random.Random(name))
                devices.append(asyncio.create_task(device.run("127.0.0.1", server.address[1], context)))
            config = uvicorn.Config(new_page(gateway, server), log_config=None, timeout_graceful_shutdown=1)
            await uvicorn.Server(config).serve(sockets=[listener])
    finally:
        for task in devices:
            task.cancel()
        await asyncio.gather(*devices, return_exceptions=True)
        await server.close(grace=1.0)


if __name__ == "__main__":
    main()
