"""`packetcore serve --workers N`: N processes that serve one port, and this one, which keeps the sockets and them."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from packetcore_cli._failure import Failure, WrongUsage
from packetcore_cli._lines import Lines, writers
from packetcore_cli._log import log_event, log_to
from packetcore_cli._metrics import total_of
from packetcore_cli._place import Place
from packetcore_cli._ports import sockets_of_workers
from packetcore_cli._serve import LOOPBACK, log_stopped, metrics_told
from packetcore_cli._signals import Impatient, Signals, heard
from packetcore_cli._supervisor import Ended, Supervisor
from packetcore_cli._terminal import Terminal
from packetcore_cli._text import address_text, counted
from packetcore_cli._watching import refuse_without_one_process
from packetcore_sockets import Notifier, as_address


def serve_workers(args: argparse.Namespace, command_line: Sequence[str], out: Terminal, err: Terminal) -> int:
    """Serve by several processes until SIGINT or SIGTERM; then have all of them drain.

    Returns:
        0; 1 where a second signal cut the draining short, or workers cannot be started; 2 for what a worker
        finds wrong with the command line, and has told.
    """
    if args.workers < 1:
        raise Failure(f"workers={args.workers} must be at least 1")
    if args.record is not None:
        raise WrongUsage("argument --workers: not allowed with argument --record (see packetcore serve --help)")
    refuse_without_one_process(args)
    if args.metrics_host is not None and args.metrics_port is None:
        raise WrongUsage("--metrics-host needs --metrics-port (see packetcore serve --help)")
    with ExitStack() as opened:
        sockets = sockets_of_workers(args, args.host or [LOOPBACK], opened)
        signals = Signals()
        opened.callback(signals.close)
        to_out, to_err = opened.enter_context(writers(out, err))
        opened.enter_context(log_to(err, to_err, args.log, verbose=args.verbose))
        opened.enter_context(heard(signals))
        notifier = Notifier()
        places = [
            Place(index, each, command_line, grace=args.grace, one_reads=args.udp) for index, each in enumerate(sockets)
        ]
        supervisor = Supervisor(places, args.grace, signals, notifier)
        where = ", ".join(address_text(as_address(sock.getsockname())) for sock in sockets[0])
        code = 0
        try:
            try:
                supervisor.start()
                if args.metrics_port is not None:
                    opened.enter_context(metrics_told(args, supervisor.counters.read))
                Lines(to_out, out).put("listening on ", (where, "bold"))
                log_event("workers", f"{counted(args.workers, 'worker')} serve", workers=args.workers)
                notifier.ready(f"listening on {where}, {counted(args.workers, 'worker')}")
                while True:
                    supervisor.turn()
            except Ended as ended:
                code = ended.code
            finally:
                if not isinstance(sys.exc_info()[1], Impatient):
                    notifier.stopping(f"draining {counted(args.workers, 'worker')}")
                    supervisor.drain()
        except Impatient:
            log_event("aborted", "aborted by a second signal", logging.WARNING)
            code = 1
        finally:
            supervisor.abort()
        if code == 0:
            log_stopped(total_of(supervisor.counters.last().values()))
        return code
