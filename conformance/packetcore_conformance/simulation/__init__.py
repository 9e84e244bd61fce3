"""A network in memory with a made-up clock and a seed: one more runtime, for tests of your own application.

    simulation = Simulation(seed=7)
    gateway, meter = simulation.host("gateway"), simulation.host("meter")
    gateway.run(serve_gateway)  # async def functions that call `serve` and `connect` of this module
    meter.run(report)
    simulation.run(3600.0)

The same seed gives the same trace on every machine and every Python.
"""

from packetcore_conformance.simulation._adapter import (
    Client,
    ConnectionPool,
    Server,
    Stream,
    connect,
    connect_udp,
    request,
    serve,
    serve_udp,
    sleep,
)
from packetcore_conformance.simulation._host import Host
from packetcore_conformance.simulation._machine import Path
from packetcore_conformance.simulation._scenario import Played, Scenario, explore, play, report
from packetcore_conformance.simulation._simulation import Simulation
from packetcore_conformance.simulation._steps import FAULTS, WEATHER, Step, draw_faults, shrink
from packetcore_conformance.simulation._world import Violation
from packetcore_tap import Impairments

__all__ = [
    "FAULTS",
    "WEATHER",
    "Client",
    "ConnectionPool",
    "Host",
    "Impairments",
    "Path",
    "Played",
    "Scenario",
    "Server",
    "Simulation",
    "Step",
    "Stream",
    "Violation",
    "connect",
    "connect_udp",
    "draw_faults",
    "explore",
    "play",
    "report",
    "request",
    "serve",
    "serve_udp",
    "shrink",
    "sleep",
]
