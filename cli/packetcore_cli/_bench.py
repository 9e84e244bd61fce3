"""`packetcore bench`: load a server that replies to packets, and tell how fast it is."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from random import Random
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from packetcore import Decoder, Packet, encode
from packetcore.framings import Framing
from packetcore_cli._arguments import payload_of
from packetcore_cli._failure import Failure
from packetcore_cli._framings import FRAMED, check_limit
from packetcore_cli._load import Run
from packetcore_cli._measured import Decoding, Histogram, Load, Measured
from packetcore_cli._terminal import Terminal
from packetcore_cli._text import address_text, counted
from packetcore_cli._tls import client_tls
from packetcore_cli._usage import refuse, refuse_beside

CONNECTIONS, IN_FLIGHT, SIZE, SECONDS = 10, 1, 64, 5.0
"""What is done unless asked otherwise: little enough for any server."""

MOST = {"connections": 10_000, "in_flight": 10_000, "packets": 10**9}
MOST_SECONDS = 3600.0
MOST_RATE = 1e6

LONGEST = 10**12
"""Nanoseconds of the longest latency that is told apart."""

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}

PROGRESS = 0.25
"""Seconds between two looks of the progress bar, each of which keeps packets waiting for some 0.3 ms."""


def bench(args: argparse.Namespace, out: Terminal) -> int:
    """Load the server and print what was measured.

    Returns:
        0; 1 where the server ended connections or left packets without a reply.

    Raises:
        Failure: it cannot be reached, replies nothing at all, or a value is out of its range.
        KeyboardInterrupt: Ctrl-C, once what was measured until then is printed.
    """
    load, histogram = _load(args), _histogram()
    with _progress(load) as looked:
        measured = _run(load, histogram, looked)
    where = address_text((load.host, load.port))
    if measured.answered:
        if args.json:
            out.line(json.dumps(_record(load, measured)))
        else:
            _show(load, measured, out)
    if measured.is_interrupted:
        raise KeyboardInterrupt
    if measured.ended and load.udp and not measured.answered:
        raise Failure(f"cannot send to {where}: {measured.ended[0]}")
    if measured.ended:
        ended = counted(len(measured.ended), "connection")
        raise Failure(f"{ended} of {load.connections} to {where} ended before the time: {measured.ended[0]}")
    if not measured.answered:
        sent = counted(measured.sent, "packet")
        odd = f", but {measured.malformed} malformed" if measured.malformed else ""
        raise Failure(f"{where} replied to none of {sent} within {load.timeout:g} s{odd}")
    if measured.outstanding:
        left = counted(measured.outstanding, "packet")
        raise Failure(f"{where} did not reply to {left} within {load.timeout:g} s")
    return 0


def _load(args: argparse.Namespace) -> Load:
    refuse_beside(args, "--udp", "--tls", "--tls-ca")
    refuse_beside(args, "--framing", "--id", "--type", why=FRAMED)
    refuse_beside(args, "--rate", "--in-flight")
    check_limit(args.framing, args.max_payload)
    for name, most in MOST.items():
        value = getattr(args, name)
        if value is not None and not 1 <= value <= most:
            raise Failure(f"{name}={value} is out of range 1 to {most}")
    for name, most_of in (("seconds", MOST_SECONDS), ("rate", MOST_RATE)):
        number = getattr(args, name)
        if number is not None and not 0 < number <= most_of:
            raise Failure(f"{name}={number:g} is out of range above 0 to {most_of:g}")
    if args.udp and (args.in_flight or 1) > 1:
        raise Failure(f"in_flight={args.in_flight} is not possible over UDP, where replies overtake each other")
    if not args.timeout:
        raise Failure("timeout=0 is not possible: there has to be an end")
    try:
        frame, new_decoder = _spoken(args, args.framing)
    except ValueError as error:
        raise Failure(str(error)) from None
    tls = client_tls(args)
    return Load(
        args.server,
        args.port,
        frame,
        new_decoder,
        connections=args.connections,
        in_flight=args.in_flight or IN_FLIGHT,
        rate=args.rate,
        # With a number of packets alone that is the end of it.
        seconds=args.seconds or (SECONDS if args.packets is None else MOST_SECONDS),
        count=args.packets,
        timeout=args.timeout,
        tls=None if tls is None else tls.context(server_side=False),
        udp=args.udp,
    )


def _spoken(args: argparse.Namespace, framing: Framing | None) -> tuple[bytes, Callable[[], Decoding]]:
    """The frame to send, and what makes decoders of what comes."""
    given = any(getattr(args, name) is not None for name in ("data", "hex", "file"))
    if given and args.size is not None:
        refuse(args, "--size", "not allowed with a payload that is given")
    size = SIZE if args.size is None else args.size
    if not 0 <= size <= args.max_payload:
        raise Failure(f"size={size} is out of range 0 to max_payload={args.max_payload}")
    payload = payload_of(args) if given else Random(size).randbytes(size)
    if framing is not None:
        return framing.encode(payload), partial(framing.decoder, args.max_payload)
    packet = Packet(1 if args.id is None else args.id, payload, type=args.type or 0)
    return encode(packet), partial(Decoder, max_payload=args.max_payload)


def _histogram() -> Histogram:
    try:
        from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]
    except ImportError:
        raise Failure("bench needs hdrhistogram: pip install 'packetcore-cli[bench]'") from None
    histogram: Histogram = HdrHistogram(1, LONGEST, 3)
    return histogram


def _run(load: Load, histogram: Histogram, looked: Any) -> Measured:
    loop = _new_loop()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(_interruptible(load, histogram, looked))
    finally:
        asyncio.set_event_loop(None)
        loop.close()


async def _interruptible(load: Load, histogram: Histogram, looked: Any) -> Measured:
    run = Run(load, histogram, looked)
    loop = asyncio.get_running_loop()
    with suppress(NotImplementedError, RuntimeError, ValueError):  # on Windows it ends without a result
        loop.add_signal_handler(signal.SIGINT, run.interrupt)
    return await run.run()


def _new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where that is installed, as adapters have it."""
    if not os.environ.get("PACKETCORE_NO_UVLOOP"):
        with suppress(ImportError):
            import uvloop

            return uvloop.new_event_loop()
    return asyncio.new_event_loop()


@contextmanager
def _progress(load: Load) -> Iterator[Any]:
    """A bar on standard error where that is a terminal; what is to be called from time to time."""
    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        yield lambda run: None
        return
    columns = BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    bar = Progress(*columns, console=console, transient=True, auto_refresh=False)
    task = bar.add_task("connecting", total=1.0)
    shown_at = -math.inf

    def looked(run: Run) -> None:
        nonlocal shown_at
        now = asyncio.get_running_loop().time()
        if now - shown_at < PROGRESS:
            return
        elapsed, answered = bar.tasks[0].elapsed or 0.0, run.measured.answered
        done = [elapsed / load.seconds, answered / load.count if load.count else 0.0]
        bar.update(task, completed=min(1.0, max(done)), description=f"{counted(answered, 'packet')} answered")
        bar.refresh()
        shown_at = now

    with bar:
        yield looked


def _show(load: Load, measured: Measured, out: Terminal) -> None:
    how = f"{counted(load.connections, 'connection')}, "
    how += f"{load.in_flight} in flight on each" if load.rate is None else f"{load.rate:,.0f} packets/s asked for"
    record = _record(load, measured)
    out.line((address_text((load.host, load.port)), "bold"), f"  {how}, frames of {len(load.frame)} bytes")
    counts = [f"{measured.sent:,} packets sent", f"{measured.answered:,} answered"]
    counts += [
        f"{number:,} {what}"
        for number, what in (
            (measured.lost, "lost"),
            (measured.left_out, "that were due and not sent"),
            (measured.malformed, "malformed"),
            (measured.unexpected, "that nobody asked for"),
        )
        if number
    ]
    rows: list[list[Any]] = [
        [("sent", "cyan"), ", ".join(counts) + f" in {measured.seconds:.2f} s"],
        [("rate", "cyan"), f"{record['packets_per_second']:,.0f} packets/s"],
        [("bytes", "cyan"), f"{record['bytes_out_per_second']:,.0f}/s out, {record['bytes_in_per_second']:,.0f}/s in"],
    ]
    if measured.answered:
        latency = record["latency_ms"]
        told = "  ".join(f"{name} {value:.3f}" for name, value in latency.items() if name != "mean")
        since = "from when it was sent" if load.rate is None else "from when it was due"
        rows.append([("latency", "cyan"), f"{told}  milliseconds, {since}"])
    out.table(rows)


def _record(load: Load, measured: Measured) -> dict[str, Any]:
    """What was measured, for machines."""
    seconds = measured.seconds or math.inf
    histogram = measured.histogram
    latency: dict[str, float] = {}
    if measured.answered:
        nanoseconds = {name: histogram.get_value_at_percentile(at) for name, at in PERCENTILES.items()}
        nanoseconds["max"] = histogram.get_max_value()
        latency = {name: value / 1e6 for name, value in nanoseconds.items()} | {
            "mean": histogram.get_mean_value() / 1e6
        }
    return {
        "host": load.host,
        "port": load.port,
        "connections": load.connections,
        "in_flight": load.in_flight if load.rate is None else None,
        "rate": load.rate,
        "frame_size": len(load.frame),
        "seconds": measured.seconds,
        "sent": measured.sent,
        "answered": measured.answered,
        "lost": measured.lost,
        "left_out": measured.left_out,
        "malformed": measured.malformed,
        "unexpected": measured.unexpected,
        "ended": len(measured.ended),
        "interrupted": measured.is_interrupted,
        "packets_per_second": measured.answered / seconds,
        "bytes_out_per_second": measured.sent * len(load.frame) / seconds,
        "bytes_in_per_second": measured.bytes_in / seconds,
        "latency_ms": latency,
    }
