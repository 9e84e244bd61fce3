"""What came in the last minute.

python -m examples.telemetry.show [--store WHERE] [--seconds N]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from statistics import fmean

from .reading import CHANNELS
from .store import Row, StoreError, open_store

BARS = "▁▂▃▄▅▆▇█"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.telemetry.show", description="The last minute.")
    parser.add_argument("--store", default="telemetry.db", metavar="WHERE", help="(default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=60, help="how long ago it begins (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.seconds < 1:
        parser.error("--seconds has to be at least 1")
    try:
        store = open_store(arguments.store, create=False)
        now = time.time()
        rows = store.since(now - arguments.seconds)
        store.close()
    except (ImportError, StoreError) as error:
        sys.exit(f"show: {error}")
    for line in summary(rows, now, arguments.seconds):
        print(line)


def summary(rows: Sequence[Row], now: float, seconds: int) -> Iterator[str]:
    """A line for each channel, with its course, and one for all: how many, and how many are missing among them."""
    if not rows:
        yield f"nothing came in the last {seconds} s"
        return
    for channel in sorted({row.channel for row in rows}):
        values = [row.value for row in rows if row.channel == channel]
        name = CHANNELS.get(channel, f"channel {channel}")
        numbers = f"{min(values):9.2f} {fmean(values):9.2f} {max(values):9.2f}  last {values[-1]:9.2f}"
        yield f"{name:16} {numbers}  {course([row for row in rows if row.channel == channel], now, seconds)}"
    missing = rows[-1].id - rows[0].id + 1 - len(rows)
    told = f"{missing} are missing among them" if missing >= 0 else "the sensor began anew among them"
    yield f"{len(rows)} readings in {seconds} s, {told}"


def course(rows: Sequence[Row], now: float, seconds: int, width: int = 60) -> str:
    """A bar for each part of the time, of its mean; a blank where nothing came."""
    parts: list[list[float]] = [[] for _ in range(width)]
    for row in rows:
        parts[min(width - 1, max(0, int((row.time - now + seconds) * width / seconds)))].append(row.value)
    means = [fmean(part) if part else None for part in parts]
    there = [mean for mean in means if mean is not None]
    low, range_ = min(there), max(there) - min(there) or 1.0
    return "".join(" " if mean is None else BARS[round((mean - low) / range_ * (len(BARS) - 1))] for mean in means)


if __name__ == "__main__":
    main()
