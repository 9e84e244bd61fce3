"""Servers in processes of their own that answer questions, for measurements of more than speed.

Each child is a process that we started and that we end by its id. It ignores Ctrl-C, which
reaches the whole group of a terminal: its parent ends it, and without a parent it ends itself.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection as Pipe
from typing import Any, NamedTuple

import psutil

from packetcore import Driver, Handler, Packet, Session, load_driver

TRANSPORTS = ("asyncio", "uvloop", "gevent", "twisted", "blocking")
"""The adapters; asyncio counts twice, for its two loops."""

ANSWER_TIMEOUT = 60.0
"""Seconds after which a child that does not answer is given up."""


class Echo(Handler):
    """Sends every packet back."""

    def packet_received(self, session: Session, packet: Packet) -> None:
        session.send(packet)


class Memory(NamedTuple):
    """A process's memory, in bytes."""

    rss: int
    """What it has in RAM, shared libraries included."""
    uss: int
    """What would be free if it ended."""


class Child:
    """A process that runs a function and answers through a pipe.

    Args:
        run: called there with the pipe and the other arguments; it ends with `answer`.
    """

    def __init__(self, run: Callable[..., object], *args: object) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=run, args=(theirs, *args), daemon=True)
        self._process.start()
        theirs.close()
        assert self._process.pid is not None
        self.pid: int = self._process.pid
        """Its process id."""

    def ask(self, what: str, *args: object, timeout: float = ANSWER_TIMEOUT) -> Any:
        """Have it call one of its commands. Gives the result, or raises what it raised.

        Raises:
            TimeoutError: there was no answer in time.
            RuntimeError: the process has ended.
        """
        try:
            self._pipe.send((what, args))
            if not self._pipe.poll(timeout):
                raise TimeoutError(f"process {self.pid} did not answer {what!r} within {timeout} s")
            reply = self._pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise RuntimeError(f"process {self.pid} ended before it answered {what!r}") from None
        if isinstance(reply, Exception):
            raise reply
        return reply

    def kill(self) -> None:
        """End it as an outage does: with no chance to say goodbye."""
        self._process.kill()
        self._process.join()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.terminate()
        self._process.join(5)
        if self._process.is_alive():
            self.kill()
        self._pipe.close()


def answer(pipe: Pipe, commands: Mapping[str, Callable[..., object]]) -> None:
    """Answer what a parent asks, until it closes the pipe."""
    while True:
        try:
            what, args = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            reply: object = commands[what](*args)
        except Exception as error:
            reply = error
        pipe.send(reply)


def begin_child() -> None:
    """What every child does first: leave Ctrl-C to its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def load(transport: str) -> Driver:
    """The driver of one of `TRANSPORTS`."""
    if transport in ("asyncio", "uvloop"):
        os.environ["PACKETCORE_NO_UVLOOP"] = "1" if transport == "asyncio" else ""
        transport = "asyncio"
    return load_driver(transport)


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
            raise SystemExit(f"{wanted} open files are needed and {hard} are allowed: see ulimit -Hn") from None


def memory(pid: int | None = None) -> Memory:
    """What a process holds now; of this one, once what is garbage is collected."""
    if pid is None:
        gc.collect()
    info = psutil.Process(pid).memory_full_info()
    return Memory(info.rss, info.uss)
