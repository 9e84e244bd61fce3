"""Runs a gateway and many terminals in this process, and tells what happened.

cd examples
python -m jt808 --terminals 2000
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import time

from packetcore import CloseReason

from .scene import Scene

SPARE_FILES = 64
"""What else a process has open."""


def main() -> None:
    """Play a scene and print its figures."""
    parser = argparse.ArgumentParser(prog="python -m jt808", description="A JT/T 808 gateway and its terminals.")
    parser.add_argument("--terminals", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument("--positions", type=int, default=3, help="that each reports (default: %(default)s)")
    parser.add_argument("--photo", type=int, default=8_000, help="bytes that each uploads (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.terminals < 1 or arguments.positions < 1 or arguments.photo < 4_000:
        parser.error("at least 1 terminal, 1 position and 4000 bytes of photo, please")
    # Both ends of each connection are here, and each tenth terminal connects twice.
    raise_file_limit(2 * arguments.terminals + arguments.terminals // 5 + SPARE_FILES)
    scene = Scene(arguments.terminals, arguments.positions, arguments.photo)
    begun = time.perf_counter()
    asyncio.run(scene.play())
    report(scene, time.perf_counter() - begun)


def report(scene: Scene, seconds: float) -> None:
    """Print what the gateway has seen."""
    counts = scene.gateway.counts
    print(f"\nThe gateway saw, of {scene.terminals:,} terminals in {seconds:.1f} s:")
    for what in sorted(counts):
        print(f"  {counts[what]:>9,}  {what}")
    print(f"  {scene.photos_alike:>9,}  photos as they were sent")
    print(f"  {peak_memory() / 1e6:>9,.0f}  MB of memory at most, for both sides")
    gone = counts[f"sessions ended: {CloseReason.REPLACED.name}"]
    is_well = scene.photos_alike == scene.terminals and scene.came_again == gone
    print("Every photo arrived, and every takeover closed the old session." if is_well else "Something went wrong.")
    if not is_well:
        sys.exit(1)


def raise_file_limit(wanted: int) -> None:
    """Let this process open so many files, where the system allows it.

    Raises:
        SystemExit: it does not; the message says what to do.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):
            raise SystemExit(
                f"{wanted} open files are needed and {hard} are allowed: take fewer --terminals, or see ulimit -Hn"
            ) from None


def peak_memory() -> int:
    """The most bytes of RAM that this process had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
