"""One socket: Twisted's callbacks become a session's inputs, the session's verbs become calls
on the transport. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Callable
from errno import ECONNRESET
from ssl import SSLError
from typing import Any

from twisted.internet import error, interfaces, tcp
from twisted.internet.address import IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper
from zope.interface import implementer  # type: ignore[import-untyped]

from packetcore import Address, Carrier, Endpoint, Session
from packetcore_sockets import read_rest
from packetcore_twisted._waiting import clock_of, soon_of, timers_of

PIECE = 64 * 1024
"""The most bytes a transport is given at a time; Linux wakes a writer in larger steps."""


@implementer(interfaces.IHalfCloseableProtocol, interfaces.IHandshakeListener, interfaces.IPullProducer)
class PacketProtocol(Protocol):
    """The protocol that Twisted drives and the `Host` that a session drives.

    Args:
        endpoint: the server or client that it belongs to; a `PacketFactory` has one.
        reactor: what tells the time and keeps timers: a reactor or a `Clock`.
        peer: the peer's address, where another is known than the transport's.
    """

    session: Session[Any]
    """Once connected; over TLS, once the handshake is done."""

    def __init__(self, endpoint: Endpoint[Any], reactor: Any, peer: Address | None = None) -> None:
        self.opened: Deferred[Session[Any]] = Deferred(lambda _: self.abort())
        """Fires with the session before its handler hears of it, or fails with why there is none."""
        self._endpoint = endpoint
        self._reactor = reactor
        self._peer = peer
        self._time = clock_of(reactor)
        self._soon = soon_of(reactor)
        self._timers = timers_of(reactor)
        self._transport: Any = None
        self._socket: Any = None  # beneath TLS and other wrappers; None where there is none
        self._write_some: Callable[[bytes], object] | None = None  # of a TCP socket with nothing above, or TLS
        self._is_open = self._is_tls = self._producing = self._has_ended = False
        self._is_behind = False  # over TLS: the socket was given records that it has not sent all
        self._error: OSError | None = None  # that broke it
        self._unsent = bytearray()  # what the transport was not given yet
        self._piece = 0  # how many bytes it was given and has not sent all
        self._when_sent: Callable[[], object] | None = None

    # What Twisted calls.

    def connectionMade(self) -> None:  # noqa: N802
        self._transport = socket = self.transport
        self._is_tls = interfaces.ISSLTransport.providedBy(socket)
        while isinstance(socket, ProtocolWrapper):
            socket = socket.transport
        if interfaces.IHalfCloseableDescriptor.providedBy(socket):
            self._socket = socket
        if isinstance(socket, tcp.Connection):
            self._socket.connectionLost = self._socket_lost
        if self._socket is not None and interfaces.ITCPTransport.providedBy(socket):
            self._socket.setTcpNoDelay(True)
        if not self._is_tls:
            self._write_some = getattr(socket, "writeSomeData", None) if socket is self.transport else None
            self.handshakeCompleted()
            return
        if isinstance(socket, tcp.Connection) and getattr(self._transport, "writes_at_once", False):
            self._write_some = socket.writeSomeData
            self._socket.write = self._write_records
        if (limit := self._endpoint.config.connect_timeout) is not None:
            self.set_timer(self._time() + limit)

    def handshakeCompleted(self) -> None:  # noqa: N802
        if self._is_tls and self._transport.disconnecting:
            return  # the certificate bears another name: some versions say so only now
        if self._is_tls:
            self.set_timer(None)  # the session has one of its own
        peer = self._peer or address_of(self._transport.getPeer())
        self.session = self._endpoint.session_type(self._endpoint, self, peer, self._time())
        self._is_open = True
        self.opened.callback(self.session)
        self.session.opened(self._time())

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        self.session.received(data, self._time())

    def readConnectionLost(self) -> None:  # noqa: N802
        if self._is_open:
            self._has_ended = True
            self.session.eof(self._time(), truncated=self._is_tls and not self._transport.at_end)
        else:  # in the midst of the TLS handshake
            self._socket.loseConnection()

    def connectionLost(self, reason: Any = connectionDone) -> None:  # noqa: N802
        if self._is_open:
            clean = reason.check(error.ConnectionDone, error.ConnectionAborted)
            self.session.lost(None if clean else reason.value, self._time())
            return
        self.set_timer(None)
        if not self.opened.called:
            text = f"the TLS handshake failed: {reason.getErrorMessage()}"
            closed = reason.check(error.ConnectionClosed)
            self.opened.errback(ConnectionResetError(text) if closed else SSLError(1, text))
            self.opened.addErrback(lambda _: None)  # nobody need have asked

    def resumeProducing(self) -> None:  # noqa: N802
        if not self._producing:  # it was given something before it was asked to pull
            return
        sent, self._piece = self._piece, 0
        if sent:
            self.session.sent_bytes(sent, self._time())
        tls_is_over = self._is_tls and self._socket.disconnecting  # and takes nothing more
        if self._unsent and not tls_is_over:
            piece = bytes(self._unsent[:PIECE])
            del self._unsent[:PIECE]
            self._piece = len(piece)
            self._transport.write(piece)
        else:
            self._producing = self._is_behind = False
            self._socket.unregisterProducer()
            if self._when_sent is not None:
                self._when_sent()

    def stopProducing(self) -> None:  # noqa: N802
        """`connectionLost` comes next; and when our own half-close is done, nothing."""

    writeConnectionLost = stopProducing  # noqa: N815

    # What the session calls.

    def write(self, data: bytes) -> int:
        if self._error is not None:
            self.session.lost(self._error, self._time())
            return 0
        if self._socket is None:  # a transport in memory, which takes all at once
            self._transport.write(data)
            return len(data)
        sent = 0
        if self._write_some is not None and not self._producing:
            # At once, while nothing waits before it: else it would wait for the reactor's next turn.
            if self._is_tls:
                if not self._is_behind and len(data) <= PIECE:
                    return self._write_tls(data)
                return self._write_behind(data)
            result = self._write_some(data)
            if not isinstance(result, int):
                self._break()
                return 0
            sent = result
            if sent == len(data):
                return sent
        self._write_behind(memoryview(data)[sent:])
        return sent

    def _write_behind(self, data: bytes | memoryview) -> int:
        # All that Twisted tells in public of what the system took is that a buffer is empty:
        # to a pull producer always, to a push producer only after more than 64 KiB. Pieces
        # make it exact to one piece. TLS would pull in a busy loop, so ask the socket below.
        self._unsent += data
        if not self._producing:
            self._producing = True
            self._socket.registerProducer(self, False)  # pulls at once
        return 0

    def _write_tls(self, data: bytes) -> int:
        self._transport.write(data)
        if not self._is_behind:
            return len(data)
        self._socket.registerProducer(self, False)
        self._producing, self._piece = True, len(data)
        return 0

    def _write_records(self, records: bytes) -> None:
        """In the place of the `write` of a socket beneath TLS: at once, while nothing waits before it."""
        socket, sent = self._socket, 0
        if not (self._producing or self._is_behind) and socket.connected and self._write_some is not None:
            result = self._write_some(records)
            sent = result if isinstance(result, int) else 0  # that it is broken, the reactor finds out
        if sent < len(records):
            self._is_behind = True
            type(socket).write(socket, records[sent:])

    def write_eof(self) -> None:
        self._after_sending(self._finish)

    def set_timer(self, at: float | None) -> None:
        self._timers.set(self, at)

    def pause_reading(self) -> None:
        self._transport.pauseProducing()

    def resume_reading(self) -> None:
        if not self._has_ended:
            self._transport.resumeProducing()

    def close(self) -> None:
        self._after_sending(self._close)

    def abort(self) -> None:
        waiting = self.session.outstanding if self._is_open else 0
        held = waiting - len(self._unsent) - self._piece  # by a paced session
        self._unsent.clear()
        if self._socket is not None and held > 0 and not self._is_behind:
            self._socket.abortConnection()
        elif self._socket is not None:
            # In good order where the system takes the rest at once, as elsewhere, else with a reset.
            self._socket.loseConnection()
            self._reactor.callLater(0, self._reactor.callLater, 0, self._socket.abortConnection)
        elif self.connected:
            getattr(self._transport, "abortConnection", self._transport.loseConnection)()

    def wake(self) -> None:
        self._soon.call(self._flush)

    def carrier(self) -> Carrier:
        tls = None
        if self._is_tls:
            from packetcore_twisted._tls import info  # pyOpenSSL need not be installed

            tls = info(self._transport)
        try:
            sock = self._socket.getHandle()
            return Carrier("tcp", sock.getsockname(), int(sock.family), tls)
        except (AttributeError, OSError):  # there is none, or it has gone
            return Carrier("tcp", tls=tls)

    def _flush(self) -> None:
        self.session.flush(self._time())

    def tick(self) -> None:
        """Its timer has fired: the session's, or before it that of the TLS handshake."""
        if self._is_open:
            self.session.tick(self._time())
        else:
            self.abort()

    def _after_sending(self, verb: Callable[[], object]) -> None:
        self._when_sent = verb
        if not self._producing:
            verb()

    def _finish(self) -> None:
        if self._is_tls or self._socket is None:
            self._transport.loseConnection()  # over TLS this says so, and the peer may still send
        if self._socket is not None:
            self._socket.loseWriteConnection()

    def _close(self) -> None:
        self._transport.loseConnection()
        if self._is_tls and self._socket is not None:
            self._socket.loseConnection()  # TLS would wait for the peer's goodbye

    def _break(self) -> None:
        """Nothing can be sent any more; what the system has received still counts."""
        self._error = _reset()
        rest = b"" if self._has_ended else read_rest(self._socket.getHandle())
        self._reactor.callLater(0, self._socket.abortConnection)
        self.session.received(rest, self._time())
        self.session.lost(self._error, self._time())

    def _socket_lost(self, reason: Any) -> None:
        """The reactor gives up a socket, before the transport does: what the system has received
        on it still counts."""
        del self._socket.connectionLost  # the transport's own is back
        is_broken = self._is_open and self._error is None and reason.check(error.ConnectionLost)
        if is_broken and not self._has_ended and (rest := read_rest(self._socket.getHandle())):
            self._error = _reset()
            self._socket.protocol.dataReceived(rest)  # ours, or the TLS between
        self._socket.connectionLost(reason)


def _reset() -> OSError:
    return ConnectionResetError(ECONNRESET, "the peer has reset the connection")


def address_of(address: Any) -> Address:
    """A Twisted address as sockets give it."""
    if isinstance(address, IPv6Address):
        return address.host, address.port, address.flowInfo, address.scopeID
    return getattr(address, "host", str(address)), getattr(address, "port", 0)
