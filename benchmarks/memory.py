"""What the core's objects take in memory, in bytes: a `Packet`, a `Decoder`, a `Session`.

Python's allocator counts (`tracemalloc`), over 10,000 of a kind made in a process of its own, once
with the codec in C and once in Python. A figure holds the object with all that is made for it and
for nobody else; what those share, a handler, a `Config` or a peer's address, is made before.

A session stands on a host that takes everything and keeps nothing: what a runtime takes for a
socket, a transport and a task is not in these figures. `connections.py` measures that.
"""

from __future__ import annotations

import gc
import os
import tracemalloc
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

from _common import save, show
from _processes import Child, Echo, answer, begin_child

from packetcore import Carrier, Config, Connection, Decoder, Endpoint, Packet, Session, SessionPool, encode, speedups

COUNT = 10_000
"""How many of each are made."""
PAYLOAD = 64
FIRST_ID = 1000
"""Python keeps the numbers up to 256 for good; packets with such an id would look smaller."""
NOW = 100.0


class Taker:
    """A `Host` that takes everything and keeps nothing, so one serves all sessions."""

    def write(self, data: bytes) -> int:
        return len(data)

    def write_eof(self) -> None: ...

    def set_timer(self, at: float | None) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...

    def wake(self) -> None: ...

    def carrier(self) -> Carrier:
        return Carrier("tcp")


def bytes_each(make: Callable[[int], object]) -> float:
    """What one object takes, with all that came into being with it.

    Args:
        make: makes one, given a number counted from 0. It is called once before, for what is
            made on first use.
    """
    held: list[object] = [make(0)] * COUNT
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for index in range(COUNT):
        held[index] = make(index)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / COUNT


def packet(size: int) -> float:
    """A decoded packet and its payload."""
    frames = [encode(Packet(FIRST_ID + index, bytes(size))) for index in range(COUNT)]
    decoder = Decoder()
    return bytes_each(lambda index: decoder.feed(frames[index])[0])


def payload(size: int) -> float:
    """The payload alone: `bytes`."""
    buffer = bytearray(size)
    return bytes_each(lambda _: bytes(buffer))


def session(*, echoed: bool) -> float:
    """A session of a server, each of another host, with its connection, its decoder and its place
    in the pool.

    Args:
        echoed: whether it has received a packet and sent it back.
    """
    endpoint = Endpoint(Echo(), Config(max_sessions=None), is_server=True)
    host = Taker()
    peers = [(f"10.0.{index // 256}.{index % 256}", 5000) for index in range(COUNT)]
    frames = [encode(Packet(FIRST_ID + index, bytes(PAYLOAD))) for index in range(COUNT)]

    def make(index: int) -> Session:
        made = Session(endpoint, host, peers[index], NOW)
        made.opened(NOW)
        if echoed:
            made.received(frames[index], NOW)
        return made

    return bytes_each(make)


def decoder(*, used: bool) -> float:
    """A decoder, as new or after a packet."""
    frame = encode(Packet(FIRST_ID, bytes(PAYLOAD)))

    def make(_: int) -> Decoder:
        made = Decoder()
        if used:
            made.feed(frame)
        return made

    return bytes_each(make)


def pool_entry() -> float:
    """A place in a `SessionPool`, where each session is of another host."""
    pool: SessionPool[object] = SessionPool()
    hosts = [f"10.0.{index // 256}.{index % 256}" for index in range(COUNT)]
    one = object()
    return bytes_each(lambda index: pool.add(one, NOW, host=hosts[index]))


def measure() -> dict[str, float]:
    """All figures."""
    config = Config()
    size = payload(PAYLOAD)
    return {
        f"payload of {PAYLOAD} bytes": size,
        "Packet, without its payload": packet(PAYLOAD) - size,
        "Decoder": decoder(used=False),
        "Decoder that has given a packet": decoder(used=True),
        "Connection": bytes_each(lambda _: Connection(config, now=NOW)),
        "place in a SessionPool": pool_entry(),
        "Session": session(echoed=False),
        "Session that has echoed": session(echoed=True),
    }


def run(pipe: Pipe) -> None:
    """Measure in a child process."""
    begin_child()
    answer(pipe, {"measure": measure})


def measured(*, pure: bool) -> dict[str, float]:
    """All figures of one of the codecs, from a new process."""
    inherited = os.environ.get("PACKETCORE_PURE")
    os.environ["PACKETCORE_PURE"] = "1" if pure else "0"
    try:
        child = Child(run)
    finally:
        if inherited is None:
            del os.environ["PACKETCORE_PURE"]
        else:
            os.environ["PACKETCORE_PURE"] = inherited
    with child:
        figures: dict[str, float] = child.ask("measure")
    return figures


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value to FILE as well")
    options = parser.parse_args()
    codecs = {"in C": False, "pure": True} if speedups else {"pure": True}
    figures = {codec: measured(pure=pure) for codec, pure in codecs.items()}
    show(
        f"bytes for each of {COUNT:,}",
        ("object", *codecs),
        [(name, *(f"{figures[codec][name]:,.0f}" for codec in codecs)) for name in figures["pure"]],
    )
    results = {f"{name}, {codec}": [value] for codec, values in figures.items() for name, value in values.items()}
    save(options.json, "memory", "bytes", results)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
