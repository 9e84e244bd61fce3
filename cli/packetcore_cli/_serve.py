"""`packetcore serve`: a server until a signal ends it."""

from __future__ import annotations

import argparse
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import ExitStack
from functools import partial
from queue import SimpleQueue
from typing import Any

from packetcore import TLS, Config, Driver, EndpointStats, ServerBase, Session
from packetcore_cli._app import App, Served
from packetcore_cli._arguments import LOOPBACK
from packetcore_cli._drivers import running_driver
from packetcore_cli._failure import Failure, reason_of
from packetcore_cli._framings import check_limit, framing_options
from packetcore_cli._given import given_sockets
from packetcore_cli._lines import Lines
from packetcore_cli._log import log_event
from packetcore_cli._metrics import SCRAPE_TIMEOUT, metrics_served
from packetcore_cli._record import recorded
from packetcore_cli._reload import reload
from packetcore_cli._running import running
from packetcore_cli._session_log import Log
from packetcore_cli._signals import HANGUP, HEARING, next_signal
from packetcore_cli._terminal import Terminal
from packetcore_cli._text import PREVIEW, Content, address_text, content_text, counted
from packetcore_cli._tls import TLS_OPTIONS, server_tls
from packetcore_cli._usage import need, refuse_beside
from packetcore_cli._watchdog import watched
from packetcore_cli._watching import live_terminal, watched_by_people
from packetcore_cli._worker import Tell, Worker
from packetcore_sockets import Notifier

DEFAULTS = Config()


class Echo(Log):
    """Sends every packet or frame back."""

    def packet_received(self, session: Session[Content], packet: Content) -> None:
        super().packet_received(session, packet)
        session.send(packet)


class Print(Log):
    """Prints every packet or frame.

    Args:
        out: where to.
        whose: said before each.
    """

    def __init__(self, out: Lines, whose: str = "") -> None:
        super().__init__()
        self._out = out
        self._whose = whose

    def packet_received(self, session: Session[Content], packet: Content) -> None:
        super().packet_received(session, packet)
        self._out.put(self._whose, (f"session {session.id}", "bold"), "  ", content_text(packet, PREVIEW))


def serve(args: argparse.Namespace, out: Terminal, err: Terminal) -> int:
    """Serve until SIGINT or SIGTERM, or nobody reads what is printed; then drain for `--grace`
    seconds. Whoever reads slowly or not at all delays neither devices nor the end.

    Returns:
        0; 1 where a second signal cut the draining short.

    Raises:
        NobodyReads: the other end of standard output was closed.
        OSError: standard output could not be written.
    """
    refuse_beside(args, "--udp", *TLS_OPTIONS, "--proxy-protocol")
    need(args, "--metrics-port", "--metrics-host")
    check_limit(args.framing, args.max_payload)
    config = config_of(args)
    tls = server_tls(args)
    with ExitStack() as opened:
        worker = None if args.as_worker is None else Worker(args, opened)
        sockets = given_sockets(args, opened) if worker is None else worker.sockets
        return _serve(args, config, tls, app_of(args, err), sockets, worker, out, err)


def app_of(args: argparse.Namespace, err: Terminal) -> App | None:
    """What `--app` names, imported; `None` without it.

    Raises:
        Failure: see `App`.
        WrongUsage: it is given beside `--echo`.
    """
    refuse_beside(args, "--echo", "--app")
    if args.app is None:
        return None
    return App(args.app, err if args.verbose else None)


def application_of(
    app: App | None,
    driver: Driver,
    args: argparse.Namespace,
    printed: Lines,
    leaving: ExitStack,
    worker: Worker | None = None,
) -> Served:
    """What is to be served: the user's, or one of ours; see `App.application`."""
    if app is not None:
        return app.application(driver, leaving)
    return Served(Echo() if args.echo else Print(printed, "" if worker is None else f"worker {worker.index}  "))


def _serve(
    args: argparse.Namespace,
    config: Config,
    tls: TLS | None,
    app: App | None,
    sockets: list[socket.socket],
    worker: Worker | None,
    out: Terminal,
    err: Terminal,
) -> int:
    transport = running_driver(
        args.transport,
        tls=tls is not None,
        udp=args.udp,
        framing=args.framing is not None,
        proxy=args.proxy_protocol is not None,
        inherited=bool(sockets),
    )
    with ExitStack() as shown:
        if (live := live_terminal(args, out, shown)) is not None:
            out, err = live, live if out.is_same_file(err) else err
        index = None if worker is None else worker.index
        command = shown.enter_context(
            running(out, err, args.log, verbose=args.verbose, sessions=app is not None, worker=index)
        )
        signals, printed = command.signals, command.printed
        if worker is not None:
            worker.hear(partial(signals.put, signal.SIGTERM))
        with recorded(args, config) as config, transport as driver, ExitStack() as beside:
            notifier = Notifier()
            served = application_of(app, driver, args, printed, beside, worker)
            if worker is not None and not _may_serve(worker, signals):
                return 0
            server = _listen(driver, served, args, config, tls, sockets)

            def read() -> EndpointStats:
                stats: EndpointStats = driver.call(lambda: server.stats, timeout=SCRAPE_TIMEOUT)
                return stats

            where = ", ".join(map(address_text, server.addresses))
            if worker is not None:
                worker.serves(read)
            else:
                beside.enter_context(metrics_served(args, lambda: {"": read()}))
                url = beside.enter_context(watched_by_people(args, server, live, printed, err))
                printed.put("listening on ", (where, "bold"))
                if url is not None:
                    printed.put("console on ", (url, "bold"))
            beside.enter_context(watched(notifier, server))
            notifier.ready(f"listening on {where}")
            while next_signal(signals) == HANGUP:
                reload(driver, server, args, notifier)
            _drain(driver, server, args.grace, notifier)
            if worker is not None:
                worker.tell(Tell.STATS, server.stats)
    return command.code


def _may_serve(worker: Worker, signals: SimpleQueue[int]) -> bool:
    """Tell the parent that the application is there, and wait until it may serve; or is to end."""
    worker.tell(Tell.LOADED)
    while not worker.may_serve(HEARING):
        if not signals.empty():
            return False
    return True


def _drain(driver: Driver, server: ServerBase[Content], grace: float, notifier: Notifier) -> None:
    sessions = driver.call(len, server.sessions)
    text = f"draining {counted(sessions, 'session')} for at most {grace:g} s; a second signal aborts"
    log_event("draining", text, sessions=sessions, grace=grace)
    notifier.stopping(f"draining {counted(sessions, 'session')}")
    _hearing_signals(partial(driver.call, server.close, grace, timeout=None))
    log_stopped(server.stats)


def _listen(
    driver: Driver,
    served: Served,
    args: argparse.Namespace,
    config: Config,
    tls: TLS | None,
    sockets: list[socket.socket],
) -> ServerBase[Content]:
    application: Any = served.application
    options = framing_options(args.framing)
    if served.sessions is not None:
        options["sessions"] = served.sessions
    if args.proxy_protocol is not None:
        options["proxy_protocol"] = args.proxy_protocol
    if sockets:
        options["socket"] = sockets
    numbers = [sock.fileno() for sock in sockets]
    hosts, port = args.host or [LOOPBACK], args.port or 0
    host = hosts if len(hosts) > 1 else hosts[0]
    try:
        if args.udp:
            return driver.start_udp_server(application, host, port, config=config, **options)
        return driver.start_server(application, host, port, config=config, tls=tls, **options)
    except (OSError, ValueError) as error:
        wanted = ", ".join(address_text((each, port)) for each in hosts)
        where = f"descriptor {', '.join(map(str, numbers))}" if numbers else wanted
        raise Failure(f"cannot listen on {where}: {reason_of(error)}") from None


def log_stopped(stats: EndpointStats) -> None:
    """Say how many sessions there were, and how much was not as it should be."""
    silent, refused, malformed, errors = stats.silent.total(), stats.refused, stats.malformed.total(), stats.errors
    amiss = (("silent", silent), ("refused", refused), ("malformed", malformed), ("errors", errors))
    log_event(
        "stopped",
        f"stopped after {counted(stats.opened, 'session')}" + "".join(f"; {what}: {n}" for what, n in amiss if n),
        sessions=stats.opened,
        silent=silent,
        refused=refused,
        malformed=malformed,
        errors=errors,
    )


def config_of(args: argparse.Namespace) -> Config:
    try:
        return Config(
            max_payload=args.max_payload,
            idle_timeout=(DEFAULTS.idle_timeout if args.idle_timeout is None else args.idle_timeout) or None,
            frame_timeout=args.frame_timeout or None,
            max_sessions=args.max_sessions,
            max_sessions_per_host=args.max_sessions_per_host,
            # Without an application only what was received is ever sent, and nothing is read from a peer
            # that does not read: no cap is needed, and one could refuse the longest packets.
            max_outstanding=None if args.app is None else DEFAULTS.max_outstanding,
        )
    except ValueError as error:
        raise Failure(str(error)) from None


def _hearing_signals(function: Callable[[], object]) -> None:
    """Call a function on another thread and wait for it, so that signals are heard meanwhile."""
    done: Future[object] = Future()

    def run() -> None:
        try:
            done.set_result(function())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="packetcore-drain", daemon=True).start()
    while not done.done():
        wait([done], timeout=HEARING)
    done.result()
