"""What Prometheus collects: every number there is, under a sound name, read when it is asked for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from itertools import count

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition, parser
from prometheus_client.parser import text_string_to_metric_families as parse

from packetcore import (
    CloseReason,
    ConnectionPoolStats,
    EndpointStats,
    Packet,
    Reason,
    Refusal,
    Stats,
    load_driver,
)
from packetcore.prometheus import PacketcoreCollector
from packetcore_asyncio import ConnectionPool, Stream

to_openmetrics: Callable[[CollectorRegistry], bytes] = exposition.generate_latest
from_openmetrics: Callable[[str], Iterator[Metric]] = parser.text_string_to_metric_families


def scrape(collector: PacketcoreCollector) -> dict[tuple[str, ...], float]:
    """The samples as a scrape gives them, by name and values of their labels."""
    registry = CollectorRegistry()
    registry.register(collector)
    text = generate_latest(registry).decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for metric in parse(text)
        for sample in metric.samples
    }


def different_numbers() -> Callable[[], int]:
    """Powers of two, so that sums of them are different too."""
    powers = count()
    return lambda: 1 << next(powers)


def set_numbers(stats: EndpointStats | Stats | ConnectionPoolStats, number: Callable[[], int]) -> None:
    """Give each number of a dataclass, and each count in it, a value of its own."""
    for field in fields(stats):
        match getattr(stats, field.name):
            case int():
                setattr(stats, field.name, number())
            case Stats() as inner:
                set_numbers(inner, number)
            case Counter():
                setattr(stats, field.name, Counter({reason: number() for reason in REASONS[field.name]}))


REASONS: dict[str, Sequence[Reason | CloseReason | Refusal]] = {
    "malformed": list(Reason),
    "refusals": list(Refusal),
    "silent": [reason for reason in CloseReason if reason not in (CloseReason.REFUSED, CloseReason.CONNECT_FAILED)],
    "closed": [reason for reason in CloseReason if reason is not CloseReason.REFUSED],
}


def test_every_number_of_an_endpoint_is_told_once() -> None:
    stats = EndpointStats()
    set_numbers(stats, number := different_numbers())
    samples = scrape(PacketcoreCollector({"gateway": lambda: stats}))
    assert sum(map(int, samples.values())) == number() - 1  # each power of two exactly once
    assert samples["packetcore_sessions", "gateway"] == stats.sessions
    assert samples["packetcore_outstanding_bytes", "gateway"] == stats.outstanding
    assert samples["packetcore_received_bytes_total", "gateway"] == stats.total.bytes_received
    assert (
        samples["packetcore_sessions_closed_total", "gateway", "idle_timeout"]
        == (stats.closed[CloseReason.IDLE_TIMEOUT])
    )
    assert samples["packetcore_connect_failures_total", "gateway"] == stats.closed[CloseReason.CONNECT_FAILED]
    assert samples["packetcore_malformed_total", "gateway", "noise"] == stats.malformed[Reason.NOISE]
    assert samples["packetcore_refused_total", "gateway", "tls_failed"] == stats.refusals[Refusal.TLS_FAILED]
    assert samples["packetcore_refused_total", "gateway", "proxy_failed"] == stats.refusals[Refusal.PROXY_FAILED]


def test_every_number_of_a_pool_is_told_once() -> None:
    stats = ConnectionPoolStats()
    set_numbers(stats, number := different_numbers())
    busy = stats.size
    stats.size += stats.idle
    samples = scrape(PacketcoreCollector(pools={"devices": lambda: stats}))
    assert sum(map(int, samples.values())) == number() - 1
    assert samples["packetcore_pool_connections", "devices", "idle"] == stats.idle
    assert samples["packetcore_pool_connections", "devices", "busy"] == busy
    assert samples["packetcore_pool_reused_total", "devices"] == stats.reused


def test_every_reason_is_there_before_it_first_occurs() -> None:
    samples = scrape(PacketcoreCollector({"gateway": EndpointStats}))
    assert set(samples.values()) == {0}
    assert {name[2] for name in samples if name[0] == "packetcore_malformed_total"} == {
        reason.name.lower() for reason in Reason
    }
    assert {name[2] for name in samples if name[0] == "packetcore_sessions_closed_total"} == {
        reason.name.lower() for reason in CloseReason if reason not in (CloseReason.REFUSED, CloseReason.CONNECT_FAILED)
    }


def test_it_is_sound_openmetrics_whatever_the_names() -> None:
    registry = CollectorRegistry()
    registry.register(
        PacketcoreCollector(
            {"a": EndpointStats, 'b "\\\n': EndpointStats}, {"a": ConnectionPoolStats, "ü": ConnectionPoolStats}
        )
    )
    metrics: list[Metric] = list(from_openmetrics(to_openmetrics(registry).decode()))
    assert {sample.labels["endpoint"] for sample in metrics[0].samples} == {"a", 'b "\\\n'}
    assert all(metric.name.startswith("packetcore_") and metric.documentation for metric in metrics)
    labels = {frozenset(sample.labels) for metric in metrics for sample in metric.samples}
    assert labels == set(map(frozenset, [{"endpoint"}, {"endpoint", "reason"}, {"pool"}, {"pool", "state"}]))
    values = [sample.labels.get("reason", "") for metric in metrics for sample in metric.samples]
    assert values == [value.lower() for value in values]


def test_where_there_are_only_pools_or_only_endpoints_nothing_is_told_of_the_others() -> None:
    pools, endpoints = PacketcoreCollector(pools={"a": ConnectionPoolStats}), PacketcoreCollector({"a": EndpointStats})
    assert {metric.name.startswith("packetcore_pool") for metric in pools.collect()} == {True}
    assert {metric.name.startswith("packetcore_pool") for metric in endpoints.collect()} == {False}


def test_nothing_is_read_before_a_scrape_and_what_raises_fails_it() -> None:
    def read() -> EndpointStats:
        raise TimeoutError("the runtime does not answer")

    registry = CollectorRegistry()
    registry.register(PacketcoreCollector({"gateway": read}))
    with pytest.raises(TimeoutError):
        generate_latest(registry)


def test_a_server_a_client_and_a_pool_are_read_while_they_run() -> None:
    driver = load_driver("asyncio")
    try:
        server = driver.start_server()
        pool: ConnectionPool = driver.open_pool(*server.address[:2], max_size=1)
        stream: Stream = driver.connect(*server.address[:2])
        samples = PacketcoreCollector(
            {
                "server": lambda: driver.call(lambda: server.stats),
                "client": lambda: driver.call(lambda: stream.session.endpoint.stats),
            },
            {"pool": lambda: driver.call(lambda: pool.stats)},
        )

        async def use() -> dict[tuple[str, ...], float]:
            async with pool.acquire() as pooled:
                await pooled.request(Packet(1, b"hello"))
                return await asyncio.get_running_loop().run_in_executor(None, scrape, samples)

        in_use = driver.call(use)
        assert in_use["packetcore_sessions", "server"] == 2
        assert in_use["packetcore_sessions", "client"] == 1
        assert in_use["packetcore_pool_connections", "pool", "busy"] == 1
        driver.call(stream.close)
        driver.call(server.close, 0)
        after = scrape(samples)
        ends = [value for name, value in after.items() if name[:2] == ("packetcore_sessions_closed_total", "server")]
        assert after["packetcore_sessions_opened_total", "server"] == sum(ends) == 2
        assert after["packetcore_packets_received_total", "server"] == 1
        assert after["packetcore_sessions_closed_total", "client", "local"] == 1
        assert after["packetcore_sessions", "server"] == after["packetcore_sessions", "client"] == 0
        assert after["packetcore_pool_connections", "pool", "idle"] == 1
    finally:
        driver.stop()
