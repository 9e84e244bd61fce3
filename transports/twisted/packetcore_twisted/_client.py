"""A client that comes back: the core's bookkeeping over Twisted's `ClientService`."""

from __future__ import annotations

from collections.abc import Callable
from random import random
from typing import Any

from twisted.application.internet import ClientService
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from zope.interface import implementer  # type: ignore[import-untyped]

from packetcore import Backoff, ClientBase, Config, Endpoint, Handler, Session, SessionClosed
from packetcore_twisted._functions import Functions, StreamFunction
from packetcore_twisted._reactor import clock_of, log_failure, stop, tie


class Client(ClientBase):
    """A client that comes back; `connect` with `reconnect` gives it. `async with` closes it at
    the end."""

    def __init__(
        self,
        handler: Handler | StreamFunction,
        config: Config | None,
        reconnect: Backoff,
        keep: int,
        reactor: Any,
        dial: Callable[[Endpoint], Deferred[Session]],
    ) -> None:
        self._reactor = reactor
        self._functions = Functions(reactor)
        super().__init__(
            handler,
            self._functions.start,
            config,
            reconnect,
            keep=keep,
            random=random,
            clock=clock_of(reactor),
            log_exception=log_failure,
        )
        tie(self.endpoint, reactor, self._ended)
        self._delay = 0.0
        self._tries = _Tries(self, dial)
        tries: Any = self._tries
        factory: Any = Factory.forProtocol(Protocol)
        self._service = ClientService(tries, factory, lambda failures: self._delay, reactor)
        self._service.startService()

    def close(self) -> Deferred[None]:
        """See `packetcore.ClientBase`. It takes `close_timeout` at most."""
        return Deferred.fromCoroutine(self._close())

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def _close(self) -> None:
        self._begin_closing()
        await deferLater(self._reactor, 0)  # a handler that hears of its connection may call this
        await self._service.stopService()
        await DeferredList(list(self._functions.running))

    def _ended(self, error: BaseException) -> None:
        self.is_closed = True
        self._service.stopService()
        stop(self._reactor, error)

    def _opened(self, session: Session) -> None:
        super()._opened(session)
        if self.is_closed:
            session.close()

    def _finished(self) -> None:
        super()._finished()
        self._tries.lost()

    def _dial_after(self, delay: float) -> None:
        self._delay = delay  # the service asks for it next

    def _on_change(self) -> None:
        """Who waits in `close` waits for the service."""


@implementer(IStreamClientEndpoint)
class _Tries:
    """What the service connects with, and the transport that it closes.

    To the service a connection is there once the session is, over TLS after the handshake: all
    before is the try, which fails once whatever went wrong. So what the service holds is a
    protocol that only begins and ends, not the one on the socket.
    """

    def __init__(self, client: Client, dial: Callable[[Endpoint], Deferred[Session]]) -> None:
        self._client = client
        self._dial = dial
        self._connection: Any = None

    def connect(self, factory: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(self._connect(factory))

    async def _connect(self, factory: Any) -> Any:
        try:
            session = await self._dial(self._client.endpoint)
        except Exception as error:
            if not self._client.is_closed:
                self._client._failed(error)
            raise
        if session.is_over:
            raise SessionClosed(session.close_reason)  # which counts as a connection that was lost
        self._connection = factory.buildProtocol(session.peer)
        self._connection.makeConnection(self)
        return self._connection

    def loseConnection(self) -> None:  # noqa: N802
        if self._client.session is not None:
            self._client.session.close()

    def lost(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.connectionLost(connectionDone)
