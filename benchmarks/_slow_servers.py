"""The server of `slow_peer.py`: it echoes, passes packets on to a peer, or is slow itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from time import sleep
from typing import Any

from _processes import answer, begin_child, load, memory

from packetcore import CloseReason, Config, Handler, Packet, ServerBase, Session, encode

ECHO, SUBSCRIBE, PUSH = 0, 1, 2
"""Types of packets: send it back; send me what is pushed from now on; pass it on."""

NOBODY = encode(Packet(0, type=PUSH))
"""What who pushes is told, once, when the peer that it was for has gone."""

SLOWNESS = 0.001
"""Seconds that a slow stream's function takes for one packet."""


class Relay(Handler):
    """Passes what one peer pushes on to another.

    Args:
        waits: whether it stops reading from the one while the other does not keep up.
    """

    def __init__(self, *, waits: bool) -> None:
        self._waits = waits
        self._sink: Session | None = None
        self._waiting: set[Session] = set()
        self.passed_on = 0
        """Bytes of payload sent to the peer that they were for."""

    def packet_received(self, session: Session, packet: Packet) -> None:
        if packet.type == PUSH:
            self._push(session, packet)
            return
        if packet.type == SUBSCRIBE:
            self._sink = session
        session.send(packet)

    def _push(self, session: Session, packet: Packet) -> None:
        sink = self._sink
        if sink is None:
            return
        if not sink.is_open:
            self._sink = None
            session.send(Packet(0, type=PUSH))
            return
        sink.send(packet)
        self.passed_on += len(packet.payload)
        if self._waits and sink.write_paused:
            self._waiting.add(session)
            session.pause()

    def writable(self, session: Session) -> None:
        if session is self._sink:
            while self._waiting:
                self._waiting.pop().resume()


def run(pipe: Pipe, transport: str, mode: str, max_outstanding: int) -> None:
    """Serve in a child process: "relay", "wait" (a relay that waits) or "stream"."""
    begin_child()
    relay = Relay(waits=mode == "wait")
    config = Config(max_outstanding=max_outstanding)
    server = (
        _start_stream(transport, config) if mode == "stream" else load(transport).start_server(relay, config=config)
    )
    answer(
        pipe,
        {
            "port": lambda: server.address[1],
            "memory": memory,
            "passed_on": lambda: relay.passed_on,
            "slow_consumers": lambda: server.stats.closed[CloseReason.SLOW_CONSUMER],
        },
    )


def _start_stream(transport: str, config: Config) -> ServerBase:
    """A server whose function takes its time for what is pushed, and echoes the rest."""
    if transport == "twisted":
        return _start_on_global_reactor(config)
    function: Any
    if transport == "gevent":
        import gevent

        function = _slow_function(gevent.sleep)
    elif transport == "blocking":
        function = _slow_function(sleep)
    else:
        import asyncio

        function = _slow_coroutine(asyncio.sleep)
    return load(transport).start_server(function, config=config)


def _start_on_global_reactor(config: Config) -> ServerBase:
    # A driver does not show its reactor, and the function needs a timer.
    from twisted.internet import reactor as installed
    from twisted.internet.task import deferLater
    from twisted.internet.threads import blockingCallFromThread

    from packetcore_twisted import serve

    reactor: Any = installed
    threading.Thread(target=reactor.run, kwargs={"installSignalHandlers": False}, daemon=True).start()
    function = _slow_coroutine(lambda seconds: deferLater(reactor, seconds))

    def start() -> Any:
        return serve(function, config=config, reactor=reactor)

    server: ServerBase = blockingCallFromThread(reactor, start)
    return server


def _slow_coroutine(pause: Callable[[float], Any]) -> Callable[[Any], Any]:
    async def serve(stream: Any) -> None:
        async for packet in stream:
            if packet.type == PUSH:
                await pause(SLOWNESS)
            else:
                await stream.send(packet)

    return serve


def _slow_function(pause: Callable[[float], object]) -> Callable[[Any], object]:
    def serve(stream: Any) -> None:
        for packet in stream:
            if packet.type == PUSH:
                pause(SLOWNESS)
            else:
                stream.send(packet)

    return serve
