"""The counters of servers, clients and connection pools, as metrics that Prometheus collects.

This module needs `prometheus_client` (`pip install packetcore[prometheus]`), and the package
does not import it. It opens no socket and starts no thread: register a `PacketcoreCollector`
and let `prometheus_client` serve the registry, or serve it with what your runtime has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from packetcore._connection_pool import ConnectionPoolStats
from packetcore._reasons import CloseReason, Reason, Refusal
from packetcore._stats import EndpointStats


class PacketcoreCollector(Collector):
    """Gives `prometheus_client` the numbers of any number of endpoints and pools.

    Each is a function that reads it. A scrape calls them one after the other on a thread of its
    own, so they must do the reading on the runtime's thread and wait for the result:
    `lambda: driver.call(lambda: server.stats)` where there is a `Driver`. What one of them raises
    fails the scrape, which Prometheus shows as `up == 0`.

    Args:
        endpoints: servers and clients, by the value of the label `endpoint`.
        pools: connection pools, by the value of the label `pool`.
    """

    def __init__(
        self,
        endpoints: Mapping[str, Callable[[], EndpointStats]] | None = None,
        pools: Mapping[str, Callable[[], ConnectionPoolStats]] | None = None,
    ) -> None:
        self._endpoints = dict(endpoints or {})
        self._pools = dict(pools or {})

    def describe(self) -> list[Metric]:
        """Every metric without a value, so that registering reads nothing."""
        return [*self._of_endpoints({}), *self._of_pools({})]

    def collect(self) -> Iterator[Metric]:
        """Read everything once."""
        yield from self._of_endpoints(self._endpoints)
        yield from self._of_pools(self._pools)

    def _of_endpoints(self, read: Mapping[str, Callable[[], EndpointStats]]) -> list[Metric]:
        metrics = _EndpointMetrics()
        for name, function in read.items():
            metrics.add(name, function())
        return metrics.all if self._endpoints else []

    def _of_pools(self, read: Mapping[str, Callable[[], ConnectionPoolStats]]) -> list[Metric]:
        metrics = _PoolMetrics()
        for name, function in read.items():
            metrics.add(name, function())
        return metrics.all if self._pools else []


# Each number has its name, its help text and where it comes from in one line. Counters get the
# suffix `_total` from prometheus_client.

_ENDPOINT_GAUGES: dict[str, tuple[str, Callable[[EndpointStats], int]]] = {
    "sessions": ("Sessions that are open.", lambda stats: stats.sessions),
    "outstanding_bytes": (
        "Bytes sent that the operating system has not taken yet.",
        lambda stats: stats.outstanding,
    ),
}

_ENDPOINT_COUNTERS: dict[str, tuple[str, Callable[[EndpointStats], int]]] = {
    "sessions_opened": ("Sessions opened.", lambda stats: stats.opened),
    "connect_failures": (
        "Tries of a client to connect that failed.",
        lambda stats: stats.closed[CloseReason.CONNECT_FAILED],
    ),
    "packets_received": ("Packets received.", lambda stats: stats.total.packets_received),
    "packets_sent": ("Packets sent.", lambda stats: stats.total.packets_sent),
    "received_bytes": ("Bytes received.", lambda stats: stats.total.bytes_received),
    "sent_bytes": ("Bytes of the packets sent.", lambda stats: stats.total.bytes_sent),
    "messages_received": ("Messages joined of packets received.", lambda stats: stats.total.messages_received),
    "packets_discarded": (
        "Packets received and not delivered, because the session was closed first.",
        lambda stats: stats.total.packets_discarded,
    ),
    "discarded_bytes": (
        "Bytes received after this side had closed, or in datagrams while it was paused.",
        lambda stats: stats.total.bytes_discarded,
    ),
    "packets_dropped": (
        "Packets sent in datagrams that the operating system did not take.",
        lambda stats: stats.total.packets_dropped,
    ),
    "late_replies": (
        "Replies to requests that had been given up, which were dropped.",
        lambda stats: stats.total.late_replies,
    ),
    "errors": (
        "Errors that the operating system reported of UDP peers.",
        lambda stats: stats.errors,
    ),
}

_SESSION_ENDS = [reason for reason in CloseReason if reason not in (CloseReason.CONNECT_FAILED, CloseReason.REFUSED)]
"""Reasons for which a session that was open can end; the other two have metrics of their own."""

_POOL_COUNTERS: dict[str, tuple[str, Callable[[ConnectionPoolStats], int]]] = {
    "opened": ("Connections opened.", lambda stats: stats.opened),
    "reused": ("Times that an open connection was handed out again.", lambda stats: stats.reused),
    "waited": ("Requests for a connection that had to wait.", lambda stats: stats.waited),
    "dead": ("Connections found dead.", lambda stats: stats.dead),
    "expired": ("Connections closed for their age or for idleness.", lambda stats: stats.expired),
    "discarded": ("Connections that their users gave up.", lambda stats: stats.discarded),
}


class _EndpointMetrics:
    def __init__(self) -> None:
        self._gauges = {
            name: GaugeMetricFamily(f"packetcore_{name}", text, labels=["endpoint"])
            for name, (text, _) in _ENDPOINT_GAUGES.items()
        }
        self._counters = {
            name: CounterMetricFamily(f"packetcore_{name}", text, labels=["endpoint"])
            for name, (text, _) in _ENDPOINT_COUNTERS.items()
        }
        by_reason = ["endpoint", "reason"]
        self._closed = CounterMetricFamily(
            "packetcore_sessions_closed", "Sessions closed, by close reason.", labels=by_reason
        )
        self._malformed = CounterMetricFamily(
            "packetcore_malformed", "Malformed frames, datagrams and messages, by reason.", labels=by_reason
        )
        self._refused = CounterMetricFamily(
            "packetcore_refused", "Connections turned away, over UDP datagrams, by what for.", labels=by_reason
        )
        self._silent = CounterMetricFamily(
            "packetcore_sessions_silent", "Sessions closed that never sent a byte, by close reason.", labels=by_reason
        )
        by_reason_all = [self._closed, self._malformed, self._refused, self._silent]
        self.all: list[Metric] = [*self._gauges.values(), *self._counters.values(), *by_reason_all]

    def add(self, endpoint: str, stats: EndpointStats) -> None:
        for name, gauge in self._gauges.items():
            gauge.add_metric([endpoint], _ENDPOINT_GAUGES[name][1](stats))
        for name, counter in self._counters.items():
            counter.add_metric([endpoint], _ENDPOINT_COUNTERS[name][1](stats))
        # Every reason from the start: a counter that appears with its first event hides that one
        # from `rate`.
        for end in _SESSION_ENDS:
            self._closed.add_metric([endpoint, end.name.lower()], stats.closed[end])
            self._silent.add_metric([endpoint, end.name.lower()], stats.silent[end])
        for refusal in Refusal:
            self._refused.add_metric([endpoint, refusal.name.lower()], stats.refusals[refusal])
        for reason in Reason:
            malformed = stats.malformed[reason]
            self._malformed.add_metric([endpoint, reason.name.lower()], malformed)


class _PoolMetrics:
    def __init__(self) -> None:
        self._connections = GaugeMetricFamily(
            "packetcore_pool_connections",
            "Connections that a pool has: idle, or busy (in use or being opened).",
            labels=["pool", "state"],
        )
        self._waiting = GaugeMetricFamily(
            "packetcore_pool_waiting", "Requests that wait for a connection.", labels=["pool"]
        )
        self._counters = {
            name: CounterMetricFamily(f"packetcore_pool_{name}", text, labels=["pool"])
            for name, (text, _) in _POOL_COUNTERS.items()
        }
        self.all: list[Metric] = [self._connections, self._waiting, *self._counters.values()]

    def add(self, pool: str, stats: ConnectionPoolStats) -> None:
        self._connections.add_metric([pool, "idle"], stats.idle)
        self._connections.add_metric([pool, "busy"], stats.size - stats.idle)
        self._waiting.add_metric([pool], stats.waiting)
        for name, counter in self._counters.items():
            counter.add_metric([pool], _POOL_COUNTERS[name][1](stats))
