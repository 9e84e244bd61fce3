"""`packetcore serve --metrics-port`: what Prometheus collects, over HTTP."""

from __future__ import annotations

import argparse
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn

from packetcore import EndpointStats
from packetcore_cli._arguments import LOOPBACK
from packetcore_cli._failure import Failure, reason_of
from packetcore_cli._log import log_event
from packetcore_cli._text import address_text

SCRAPE_TIMEOUT = 10.0
"""Seconds that one scrape may take, as long as Prometheus itself waits for it."""

_logger = logging.getLogger("packetcore_cli")


Read = Callable[[], Mapping[str, EndpointStats]]
"""Gives the counters of each worker, by its number, or of the one server, by "". Called by a scrape, on its thread."""


@contextmanager
def metrics_served(args: argparse.Namespace, read: Read) -> Iterator[None]:
    """Serve metrics until the end of the block, if that was asked for, and log where.

    Args:
        args: the command line.
        read: gives the counters.

    Raises:
        Failure: `prometheus-client` is missing, or the address cannot be listened on.
    """
    if args.metrics_port is None:
        yield
        return
    handler = _new_handler(read)
    host, port = args.metrics_host or LOOPBACK, args.metrics_port
    try:
        http = _HTTPServer(host, port, handler)
    except (OSError, UnicodeError) as error:
        where = address_text((host, port))
        raise Failure(f"cannot serve metrics on {where}: {reason_of(error)}") from None
    with http:
        thread = threading.Thread(target=http.serve_forever, args=(0.1,), name="packetcore-metrics", daemon=True)
        thread.start()
        try:
            url = f"http://{address_text(http.socket.getsockname())}/metrics"
            log_event("metrics", f"metrics on {url}", url=url)
            yield
        finally:
            http.shutdown()
            thread.join()


class _HTTPServer(ThreadingMixIn, TCPServer):
    """http.server's own looks up the name of its host, which may take long, and needs it for
    nothing here."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        self.address_family = family
        super().__init__((str(address[0]), port), handler)

    def handle_error(self, request: object, client_address: object) -> None:
        _logger.warning("a scrape of the metrics failed", exc_info=True)


def total_of(each: Iterable[EndpointStats]) -> EndpointStats:
    """The sum of the counters."""
    total = EndpointStats()
    for stats in each:
        total.sessions += stats.sessions
        total.outstanding += stats.outstanding
        total.opened += stats.opened
        total.total.add(stats.total)
        total.refusals.update(stats.refusals)
        total.silent.update(stats.silent)
        total.closed.update(stats.closed)
    return total


def _new_handler(read: Read) -> type[BaseHTTPRequestHandler]:
    try:
        from prometheus_client import CollectorRegistry, MetricsHandler
        from prometheus_client.metrics_core import Metric
        from prometheus_client.registry import Collector

        from packetcore.prometheus import PacketcoreCollector
    except ImportError:
        raise Failure("--metrics-port needs prometheus-client: pip install 'packetcore-cli[metrics]'") from None

    class Collected(Collector):
        """The sum of all workers, and each with a label of its own."""

        def describe(self) -> list[Metric]:
            return PacketcoreCollector({"": EndpointStats}).describe()

        def collect(self) -> Iterator[Metric]:
            each = {**read()}
            each[""] = each[""] if "" in each else total_of(each.values())
            endpoints = {worker: partial(_same, stats) for worker, stats in sorted(each.items())}
            for metric in PacketcoreCollector(endpoints).collect():
                metric.samples = [sample._replace(labels=_labels(sample.labels)) for sample in metric.samples]
                yield metric

    metrics = CollectorRegistry()
    metrics.register(Collected())

    class Handler(MetricsHandler):
        registry = metrics
        timeout = SCRAPE_TIMEOUT  # whoever connects and asks nothing does not keep a thread

    return Handler


def _same(stats: EndpointStats) -> EndpointStats:
    return stats


def _labels(labels: Mapping[str, str]) -> dict[str, str]:
    worker = labels["endpoint"]
    return {**labels, "endpoint": "serve"} | ({"worker": worker} if worker else {})
