"""A reactor as a `packetcore_sockets.Runtime` whose streams are Twisted's transports."""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine
from inspect import ismethod
from ssl import SSLContext, SSLError
from threading import get_ident
from typing import Any
from weakref import WeakMethod

from twisted.internet import tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger

from packetcore import Address, Dial, Endpoint, Handle, ProxiedAddress, Session
from packetcore_sockets import ATTEMPT_DELAY, Attempts, Runtime, checked_delay
from packetcore_twisted._connecting import addresses_of, connect_first
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
    """A reactor, or a clock in its place."""

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
        self._watch(sock, "on_read", callback)

    def set_writer(self, sock: socket.socket, callback: Callback | None) -> None:
        self._watch(sock, "on_write", callback)

    def _watch(self, sock: socket.socket, which: str, callback: Callback | None) -> None:
        watched = self._watched.get(sock)
        if watched is None and callback is not None:
            watched = self._watched[sock] = _Watched(sock, self.reactor)
        if watched is not None:
            setattr(watched, which, callback)
            watched.watch()
            if watched.on_read is None and watched.on_write is None:
                del self._watched[sock]

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
        if sock.family == getattr(socket, "AF_UNIX", None):
            if not isinstance(context, SSLContext | None):
                sock.close()
                raise SSLError(f"TLS over a Unix socket takes an SSLContext, not {context!r}")
            return super().accept(endpoint, sock, peer, context, done)
        protocol = PacketProtocol(endpoint, self.reactor, peer)
        top: Any = protocol
        if context is not None:
            top = self._factory(protocol, context, is_client=False).buildProtocol(None)
        sock.setblocking(False)
        # Twisted's `adoptStreamConnection` asks the socket who its peer is: one that was reset knows no more.
        no_port: Any = None
        client = peer.proxy.address if isinstance(peer, ProxiedAddress) else peer
        transport = tcp.Server(sock, top, client, no_port, sock.fileno(), self.reactor)
        transport.repstr = f"<{type(top).__name__} with {client[0]} port {client[1]}>"
        top.makeConnection(transport)
        return None if context is None else _tell(protocol.opened, done)

    def dialler(  # type: ignore[override]
        self, host: str, port: int, *, ssl: Any = None, attempt_delay: float = ATTEMPT_DELAY
    ) -> Dial:
        delay = checked_delay(attempt_delay)

        async def connect(protocol: PacketProtocol, told: list[Attempts]) -> None:
            await deferLater(self.reactor, 0)
            factory = self._factory(protocol, ssl(host) if callable(ssl) else ssl, is_client=True)
            told.append(Attempts(await addresses_of(self.reactor, host, port), delay))
            if not await connect_first(self.reactor, self, told[0], factory):
                raise told[0].error(host, port)

        def dial(endpoint: Endpoint[Any], done: Done) -> Handle:
            def failed(reason: Any) -> None:
                if not opened.called:
                    opened.errback(reason)

            def give_up(reason: Any) -> Any:
                connecting.cancel()
                return reason

            def timed_out(*_: object) -> Any:
                error = endpoint.connect_timed_out(host, port)
                return fail(told[0].timed_out(error) if told else error)

            protocol = PacketProtocol(endpoint, self.reactor)
            opened: Any = protocol.opened
            told: list[Attempts] = []
            connecting = Deferred.fromCoroutine(connect(protocol, told)).addErrback(failed)
            if (limit := endpoint.config.connect_timeout) is not None:
                opened.addTimeout(limit, self, timed_out)
            return _tell(opened.addErrback(give_up), done)

        return dial

    def check_tls(self, context: Any) -> None:
        """See `packetcore_sockets.Network`; `context` is what `serve` takes as `ssl`."""
        from packetcore_twisted._tls import check  # pyOpenSSL need not be installed

        check(context)

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
    """A socket, as a reactor watches it: one for both ways, since some reactors know one for each descriptor."""

    on_read: Callback | None = None
    on_write: Callback | None = None

    def __init__(self, sock: socket.socket, reactor: Any) -> None:
        super().__init__(reactor)
        self.fileno = sock.fileno  # type: ignore[method-assign]

    def watch(self) -> None:
        """Have the reactor do so for what is set."""
        reactor: Any = self.reactor
        (reactor.removeReader if self.on_read is None else reactor.addReader)(self)
        (reactor.removeWriter if self.on_write is None else reactor.addWriter)(self)

    def doRead(self) -> None:  # noqa: N802
        if self.on_read is not None:
            self.on_read()

    def doWrite(self) -> None:  # noqa: N802
        if self.on_write is not None:
            self.on_write()

    def readConnectionLost(self, reason: object) -> None:  # noqa: N802
        self.connectionLost(reason)

    def connectionLost(self, reason: object) -> None:  # noqa: N802
        # A reactor that polls takes a socket with an error and nothing else for one to close.
        self.watch()
        self.doRead()
        self.doWrite()
