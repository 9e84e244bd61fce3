"""How fast the codec is (with PACKETCORE_PURE=1, the one in Python), for random payloads of four sizes.

Decoding is fed a stream of packets 64 KiB at a time, as a socket would give it; encoding
takes packets one by one. The garbage collector stays on, as it does in a server.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from statistics import median
from time import perf_counter

from _common import arguments, interleave, save, show

from packetcore import Decoder, Packet, encode, speedups

PAYLOAD_SIZES = (16, 64, 1024, 65536)
CHUNK = 64 * 1024
STREAM_SIZE = 2 * 1024 * 1024
MOST_PACKETS = 10_000
"""How much one measurement takes, whichever is less: some 10 ms, short enough that a few
of them fall between a shared machine's slow spells."""
BAR_SIZE = 64
BAR = 700_000
"""Packets a second that decoding and encoding are to reach at 64 bytes of payload."""


def packets_of(size: int) -> list[Packet]:
    """Packets with random payloads, the same ones in every run."""
    number = min(MOST_PACKETS, STREAM_SIZE // size)
    random_bytes = random.Random(size).randbytes
    return [Packet(index % 65536, random_bytes(size)) for index in range(number)]


def decoding(packets: list[Packet]) -> Callable[[], float]:
    """A measurement of decoding: packets a second."""
    stream = b"".join(map(encode, packets))
    chunks = [stream[at : at + CHUNK] for at in range(0, len(stream), CHUNK)]
    decoder = Decoder()
    assert [event for chunk in chunks for event in decoder.feed(chunk)] == packets

    def measure() -> float:
        feed = Decoder().feed
        begin = perf_counter()
        for chunk in chunks:
            feed(chunk)
        return len(packets) / (perf_counter() - begin)

    return measure


def encoding(packets: list[Packet]) -> Callable[[], float]:
    """A measurement of encoding: packets a second."""

    def measure() -> float:
        begin = perf_counter()
        for packet in packets:
            encode(packet)
        return len(packets) / (perf_counter() - begin)

    return measure


def main() -> None:
    options = arguments(__doc__, rounds=100).parse_args()
    cases: dict[str, Callable[[], float]] = {}
    for size in PAYLOAD_SIZES:
        packets = packets_of(size)
        cases[f"decode {size}"] = decoding(packets)
        cases[f"encode {size}"] = encoding(packets)
    results = interleave(cases, options.rounds)
    rows = [
        (
            name,
            f"{median(values):,.0f} ({max(values):,.0f})",
            f"{median(values) * int(name.split()[1]) / 1e6:,.0f}",
            f"{BAR:,}" if name.endswith(f" {BAR_SIZE}") else "",
        )
        for name, values in results.items()
    ]
    show(
        f"codec, {'in C' if speedups else 'pure Python'}",
        ("bytes of payload", "packets/s: median (best)", "payload MB/s: median", "bar"),
        rows,
    )
    save(options.json, "codec", "packets per second", results)


if __name__ == "__main__":
    main()
