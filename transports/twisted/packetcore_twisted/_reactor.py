"""A reactor as a `packetcore_sockets.Runtime` whose streams are Twisted's transports."""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine
from inspect import ismethod
from threading import get_ident
from typing import Any
from weakref import WeakMethod

from twisted.internet import error, tcp
from twisted.internet.abstract import FileDescriptor, isIPAddress, isIPv6Address
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger

from packetcore import Address, Dial, Endpoint, Handle, Session
from packetcore_sockets import Runtime
from packetcore_twisted._protocol import PacketProtocol
from packetcore_twisted._waiting import Event, Timer, clock_of

Callback = Callable[[], object]
Done = Callable[[Session[Any] | Exception], object]

_log = Logger(namespace="packetcore")


def current(reactor: Any = None) -> Reactor:
    """The runtime of a reactor, which is the global one by default."""
    if reactor is None:
        from twisted.internet import reactor  # not before: importing it is choosing it
    known = vars(reactor)
    if "packetcore" not in known:
        known["packetcore"] = Reactor(reactor)
    runtime: Reactor = known["packetcore"]
    return runtime


class Reactor(Runtime):
    """A reactor, or a clock in its place. It has sockets watched for what they have to read, and never
    for room: what needs that are streams, which have Twisted's transports."""

    log_exception = staticmethod(lambda message: _log.failure("{message}", message=message))

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        """What Twisted knows it by."""
        self._clock = clock_of(reactor)
        self._thread: int | None = None  # the reactor's, once that runs
        self._is_clock = not hasattr(reactor, "callFromThread")
        self._watched: dict[socket.socket, _Watched] = {}
        self._held: set[Callable[[], Any]] = set()
        if not self._is_clock:
            reactor.callFromThread(self._begin)
            reactor.addSystemEventTrigger("during", "shutdown", self._end_all)

    def time(self) -> float:
        return self._clock()

    def call_soon(self, callback: Callback) -> None:
        if self._is_clock or get_ident() == self._thread:
            self.reactor.callLater(0, callback)
        else:
            self.reactor.callFromThread(callback)

    def call_at(self, when: float, callback: Callback) -> Timer:
        return Timer(self.reactor, when, callback)

    def callLater(self, delay: float, callback: Callback) -> Timer:  # noqa: N802
        """What limits how long a Deferred takes asks this of an `IReactorTime`."""
        return self.call_at(self.time() + delay, callback)

    def set_reader(self, sock: socket.socket, callback: Callback | None) -> None:
        if sock in self._watched:
            self.reactor.removeReader(self._watched.pop(sock))
        if callback is not None:
            self._watched[sock] = _Watched(sock, callback, self.reactor)

    def set_writer(self, sock: socket.socket, callback: Callback | None) -> None:
        raise NotImplementedError

    def bind(self, endpoint: Endpoint[Any]) -> None:
        if not self._is_clock:
            super().bind(endpoint)

    def hold(self, end: Callback) -> None:
        # What was forgotten may go: nobody has to close a factory.
        self._held.add(WeakMethod(end, self._held.discard) if ismethod(end) else end)

    def release(self, end: Callback) -> None:
        self._held.discard(WeakMethod(end) if ismethod(end) else end)

    def end(self, error: BaseException) -> bool:
        """Stop the reactor, if it runs, and log why: nothing public has it exit with a code."""
        _log.critical("a handler ended the program: {error!r}", error=error)
        if getattr(self.reactor, "running", False):
            self.reactor.callLater(0, self.reactor.stop)
        return True

    def new_event(self) -> Event:
        return Event(self.reactor)

    def spawn(self, coroutine: Coroutine[Any, Any, object], done: Callback) -> Handle:
        def over(result: object) -> None:
            coroutine.close()  # it may not have begun
            done()

        return deferLater(self.reactor, 0, Deferred.fromCoroutine, coroutine).addBoth(over)

    def accept(
        self, endpoint: Endpoint[Any], sock: socket.socket, peer: Address, context: Any, done: Done
    ) -> Handle | None:
        protocol = PacketProtocol(endpoint, self.reactor)
        top: Any = protocol
        if context is not None:
            top = self._factory(protocol, context, is_client=False).buildProtocol(None)
        sock.setblocking(False)
        # Twisted's `adoptStreamConnection` asks the socket who its peer is: one that was reset knows no more.
        no_port: Any = None
        transport = tcp.Server(sock, top, peer, no_port, sock.fileno(), self.reactor)
        transport.repstr = f"<{type(top).__name__} with {peer[0]} port {peer[1]}>"
        top.makeConnection(transport)
        return None if context is None else _tell(protocol.opened, done)

    def dialler(self, host: str, port: int, *, ssl: Any = None) -> Dial:  # type: ignore[override]
        new_endpoint: Any = TCP4ClientEndpoint if isIPAddress(host) or isIPv6Address(host) else HostnameEndpoint

        async def connect(protocol: PacketProtocol) -> None:
            await deferLater(self.reactor, 0)
            factory = self._factory(protocol, ssl(host) if callable(ssl) else ssl, is_client=True)
            try:
                await new_endpoint(self.reactor, host, port, None).connect(factory)
            except error.ConnectError as refused:
                text = f"connecting to {host} port {port}: {refused}"
                raise (OSError(refused.osError, text) if refused.osError else OSError(text)) from None

        def dial(endpoint: Endpoint[Any], done: Done) -> Handle:
            def failed(reason: Any) -> None:
                if not opened.called:
                    opened.errback(reason)

            def give_up(reason: Any) -> Any:
                connecting.cancel()
                return reason

            protocol = PacketProtocol(endpoint, self.reactor)
            opened: Any = protocol.opened
            connecting = Deferred.fromCoroutine(connect(protocol)).addErrback(failed)
            if (limit := endpoint.config.connect_timeout) is not None:
                opened.addTimeout(limit, self, lambda *_: fail(endpoint.connect_timed_out(host, port)))
            return _tell(opened.addErrback(give_up), done)

        return dial

    def over_tls(self, ssl: Any, factory: Any, *, is_client: bool) -> Any:
        """Put TLS beneath the protocols of a factory."""
        from packetcore_twisted._tls import TLSFactory  # pyOpenSSL need not be installed

        return TLSFactory(ssl, is_client, factory, self.reactor)

    def _factory(self, protocol: PacketProtocol, ssl: Any, *, is_client: bool) -> Any:
        factory: Any = Factory.forProtocol(lambda: protocol)
        factory.noisy = False
        return factory if ssl is None else self.over_tls(ssl, factory, is_client=is_client)

    def _begin(self) -> None:
        self._thread = get_ident()

    def _end_all(self) -> None:
        for held in [*self._held]:
            end = held() if isinstance(held, WeakMethod) else held
            if end is not None:
                end()


def _tell(opened: Any, done: Done) -> Handle:
    told: Handle = opened.addCallbacks(done, lambda failed: failed.check(CancelledError) or done(failed.value))
    return told


class _Watched(FileDescriptor):
    """A socket, as a reactor watches it."""

    def __init__(self, sock: socket.socket, callback: Callback, reactor: Any) -> None:
        super().__init__(reactor)
        self.fileno = sock.fileno  # type: ignore[method-assign]
        self.doRead = self._callback = callback  # type: ignore[method-assign]
        self._watch: Callable[[object], object] = reactor.addReader
        self._watch(self)

    def readConnectionLost(self, reason: object) -> None:  # noqa: N802
        self._watch(self)  # a reactor that polls takes a socket with an error and nothing else for one to close
        self._callback()
