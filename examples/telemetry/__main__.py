"""Reads a sensor on a serial line and stores what it says.

python -m examples.telemetry                    a simulated sensor, on a line that is noisy
python -m examples.telemetry /dev/ttyUSB0       a real one
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import signal
import sys

from packetcore import Backoff, Config
from packetcore_asyncio import connect_serial

from .collector import Collector
from .reading import CODEC, FRAMING
from .sensor import Sensor
from .store import StoreError, open_store

LINE = Config(idle_timeout=10.0, max_payload=64)
"""A sensor that says nothing for so long is given up, and its line opened anew."""

REPORT = 5.0
"""Seconds between two lines of figures."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.telemetry", description="A serial line, stored.")
    parser.add_argument("device", nargs="?", help="the line, as /dev/ttyUSB0; a simulated one if not given")
    parser.add_argument("--baudrate", type=int, default=115200, help="of the line (default: %(default)s)")
    parser.add_argument(
        "--store",
        default="telemetry.db",
        metavar="WHERE",
        help="a file of SQLite's, or postgresql://USER@HOST/DATABASE (default: %(default)s)",
    )
    parser.add_argument(
        "--rate", type=float, default=50.0, help="the simulated sensor's readings a second (%(default)g)"
    )
    parser.add_argument("--noise", type=float, default=0.02, help="what part of them is damaged (%(default)g)")
    arguments = parser.parse_args()
    if not arguments.rate > 0 or not 0 <= arguments.noise <= 1:
        parser.error("--rate has to be above 0, and --noise from 0 to 1")
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    try:
        asyncio.run(run(arguments.device, arguments.baudrate, arguments.store, arguments.rate, arguments.noise))
    except (ImportError, OSError, StoreError, ValueError) as error:
        sys.exit(f"telemetry: {error}")


async def run(device: str | None, baudrate: int, where: str, rate: float, noise: float) -> None:
    """Collect until SIGINT or SIGTERM, then store the rest."""
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted.set)
    store = open_store(where)
    sensor = None
    tasks = []
    try:
        collector = Collector(store)
        if device is None:
            last = store.last_id()
            sensor = Sensor(rate, noise, random.Random(), 0 if last is None else last + 1)
            device = sensor.device
        client = await connect_serial(
            device, collector, baudrate=baudrate, framing=FRAMING, codec=CODEC, config=LINE, reconnect=Backoff()
        )
        if sensor is not None:
            tasks.append(asyncio.create_task(sensor.run()))
        tasks.append(asyncio.create_task(report(collector)))
        writing = asyncio.create_task(collector.write())
        print(f"{device} into {where} (Ctrl-C ends)", flush=True)
        await interrupted.wait()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)  # another one does not wait for the store
        await client.close()
        collector.stop()
        await writing
        print(f"the end: {figures(collector)}", flush=True)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if sensor is not None:
            sensor.close()
        store.close()


async def report(collector: Collector) -> None:
    """Print figures now and then."""
    while True:
        await asyncio.sleep(REPORT)
        print(figures(collector), flush=True)


def figures(collector: Collector) -> str:
    """What was collected until now."""
    return (
        f"{collector.stored} stored, {len(collector.waiting)} wait, {collector.missing} missing, "
        f"{collector.malformed_runs} malformed, {collector.restarts} restarts of the sensor"
    )


if __name__ == "__main__":
    main()
