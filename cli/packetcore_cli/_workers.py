"""`packetcore serve --workers N`: N processes that serve one port, and this one, which keeps the sockets and them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack

from packetcore_cli._arguments import LOOPBACK
from packetcore_cli._failure import Failure
from packetcore_cli._log import log_event
from packetcore_cli._metrics import metrics_served, total_of
from packetcore_cli._place import Place
from packetcore_cli._ports import sockets_of_workers
from packetcore_cli._running import running
from packetcore_cli._serve import log_stopped
from packetcore_cli._signals import Signals
from packetcore_cli._supervisor import Ended, Supervisor
from packetcore_cli._terminal import Terminal
from packetcore_cli._text import address_text, counted
from packetcore_cli._usage import need, refuse_beside
from packetcore_sockets import Notifier, as_address


def serve_workers(args: argparse.Namespace, command_line: Sequence[str], out: Terminal, err: Terminal) -> int:
    """Serve by several processes until SIGINT or SIGTERM, or nobody reads what is printed; then have all of them drain.

    Returns:
        0; 1 where a second signal cut the draining short, or workers cannot be started; 2 for what a worker
        finds wrong with the command line, and has told.

    Raises:
        Failure: the port cannot be had, the system cannot do it, or a value is out of its range.
        NobodyReads: the other end of standard output was closed.
        OSError: standard output could not be written.
    """
    if args.workers < 1:
        raise Failure(f"workers={args.workers} must be at least 1")
    refuse_beside(args, "--record", "--workers")
    refuse_beside(args, "--console", "--workers", why=", which shows the sessions of one process")
    need(args, "--metrics-port", "--metrics-host")
    with ExitStack() as opened:
        sockets = sockets_of_workers(args, args.host or [LOOPBACK], opened)
        signals = Signals()
        opened.callback(signals.close)
        command = opened.enter_context(running(out, err, args.log, signals=signals, verbose=args.verbose))
        notifier = Notifier()
        places = [
            Place(index, each, command_line, grace=args.grace, one_reads=args.udp) for index, each in enumerate(sockets)
        ]
        supervisor = Supervisor(places, args.grace, signals, notifier)
        opened.callback(supervisor.abort)
        where = ", ".join(address_text(as_address(sock.getsockname())) for sock in sockets[0])
        opened.enter_context(metrics_served(args, supervisor.counters.read))
        try:
            supervisor.start()
            command.printed.put("listening on ", (where, "bold"))
            log_event("workers", f"{counted(args.workers, 'worker')} serve", workers=args.workers)
            notifier.ready(f"listening on {where}, {counted(args.workers, 'worker')}")
            while True:
                supervisor.turn()
        except Ended as ended:
            command.code = ended.code
        notifier.stopping(f"draining {counted(args.workers, 'worker')}")
        supervisor.drain()
        if command.code == 0:
            log_stopped(total_of(supervisor.counters.last().values()))
    return command.code
