"""What a worker of `packetcore serve --workers` has of its parent: its sockets, and a pipe to speak by."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from enum import Enum
from multiprocessing.connection import Connection

from packetcore import EndpointStats
from packetcore_sockets import socket_of


class Tell(Enum):
    """What a worker says."""

    LOADED = "the application is there; it serves when told to"
    SERVING = "it serves"
    STATS = "its counters, which were asked for, or are its last"


class Ask(Enum):
    """What a parent says."""

    SERVE = "serve"
    STATS = "tell the counters"
    DRAIN = "drain, and end"  # no signal: a service manager may send one too, and two are an abort
    ABORT = "end at once"


Message = tuple[Tell, EndpointStats | None]
"""What a worker sends: what it says, and its counters where they are part of it."""


def worker_text(index: int, descriptor: int, sockets: Sequence[socket.socket]) -> str:
    """What `--as-worker` is given: the worker's number, its end of the pipe, and what it serves on."""
    return f"{index}:{descriptor}:{','.join(str(sock.fileno()) for sock in sockets)}"


class Worker:
    """This process, one of several.

    Args:
        args: with what `worker_text` gave.
        opened: closes the sockets that no server has closed.
    """

    def __init__(self, args: argparse.Namespace, opened: ExitStack) -> None:
        index, descriptor, sockets = args.as_worker.split(":")
        args.host = args.port = args.fd = None  # they were the parent's
        self.index = int(index)
        self.sockets = [opened.enter_context(socket_of(int(each))) for each in sockets.split(",")]
        self._pipe: Connection[Message, Ask] = Connection(int(descriptor))
        self._sending = threading.Lock()
        self._may_serve = threading.Event()
        self._read: Callable[[], EndpointStats] | None = None

    def hear(self, drain: Callable[[], object]) -> None:
        """Hear the parent from now on.

        Args:
            drain: called when it says so, or has ended, however it did; on a thread of its own.
        """

        def run() -> None:
            with suppress(EOFError, OSError):
                while True:
                    match self._pipe.recv():
                        case Ask.SERVE:
                            self._may_serve.set()
                        case Ask.STATS if self._read is not None:
                            with suppress(RuntimeError, TimeoutError):  # it ends, or is stuck: no answer says so
                                self.tell(Tell.STATS, self._read())
                        case Ask.DRAIN:
                            drain()
                        case Ask.ABORT:
                            for number in (signal.SIGINT, signal.SIGTERM):
                                os.kill(os.getpid(), number)
            drain()

        threading.Thread(target=run, name="packetcore-parent", daemon=True).start()

    def may_serve(self, within: float) -> bool:
        """Wait for the parent to say so, for a time."""
        return self._may_serve.wait(within)

    def serves(self, read: Callable[[], EndpointStats]) -> None:
        """Tell that it does.

        Args:
            read: gives the counters, from any thread.
        """
        self._read = read
        self.tell(Tell.SERVING)

    def tell(self, what: Tell, stats: EndpointStats | None = None) -> None:
        """Tell the parent something, if it is there."""
        with self._sending, suppress(OSError):
            self._pipe.send((what, stats))
