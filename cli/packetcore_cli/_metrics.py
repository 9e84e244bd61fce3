"""`packetcore serve --metrics-port`: what Prometheus collects, over HTTP."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from packetcore import Driver, ServerBase
from packetcore_cli._failure import Failure, reason_of
from packetcore_cli._text import address_text

SCRAPE_TIMEOUT = 10.0
"""Seconds that one scrape may take, as long as Prometheus itself waits for it."""

_logger = logging.getLogger("packetcore_cli")


@contextmanager
def metrics_served(driver: Driver, server: ServerBase[Any], host: str, port: int) -> Iterator[str]:
    """Serve the metrics of a server until the end of the block; gives their URL.

    Args:
        driver: the runtime that the server runs on.
        server: what to measure.
        host: the address to listen on.
        port: 0 takes a free one.

    Raises:
        Failure: `prometheus-client` is missing, or the address cannot be listened on.
    """
    handler = _new_handler(driver, server)
    try:
        http = _HTTPServer(host, port, handler)
    except (OSError, UnicodeError) as error:
        where = address_text((host, port))
        raise Failure(f"cannot serve metrics on {where}: {reason_of(error)}") from None
    with http:
        thread = threading.Thread(target=http.serve_forever, args=(0.1,), name="packetcore-metrics", daemon=True)
        thread.start()
        try:
            yield f"http://{address_text(http.socket.getsockname())}/metrics"
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


def _new_handler(driver: Driver, server: ServerBase[Any]) -> type[BaseHTTPRequestHandler]:
    try:
        from prometheus_client import CollectorRegistry, MetricsHandler

        from packetcore.prometheus import PacketcoreCollector
    except ImportError:
        raise Failure("--metrics-port needs prometheus-client: pip install 'packetcore-cli[metrics]'") from None
    metrics = CollectorRegistry()
    endpoints = {"serve": lambda: driver.call(lambda: server.stats, timeout=SCRAPE_TIMEOUT)}
    metrics.register(PacketcoreCollector(endpoints))

    class Handler(MetricsHandler):
        registry = metrics
        timeout = SCRAPE_TIMEOUT  # whoever connects and asks nothing does not keep a thread

    return Handler
