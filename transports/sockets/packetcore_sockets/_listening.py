"""A server's way in: its listening sockets, and what came by them until it is a session."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from functools import partial
from ssl import SSLContext
from typing import Any

from packetcore import Address, Endpoint, Handle, LocalProtocolError, Refusal, Session
from packetcore_sockets._listener import Listener
from packetcore_sockets._network import Network
from packetcore_sockets._proxied import HeaderReading, Proxies
from packetcore_sockets._websocket.first_byte import FirstByte
from packetcore_sockets._websocket.options import WebSocketOptions


class Listening:
    """Accepts for an endpoint, until it is closed.

    Args:
        network: accepts.
        endpoint: whose sessions they are to be; hears of peers whose TLS failed.
        sockets: listening; they belong to this from now on.
        context: what to speak TLS by; `None` for plain TCP.
        proxies: who has to tell whose connections they hand on, and nobody else may connect; `None` where
            devices connect themselves.
        websocket: how they speak WebSocket; `None` where they do not.
    """

    def __init__(
        self,
        network: Network,
        endpoint: Endpoint[Any],
        sockets: Sequence[socket.socket],
        context: SSLContext | None,
        proxies: Proxies | None = None,
        websocket: WebSocketOptions | None = None,
    ) -> None:
        self._network = network
        self._endpoint = endpoint
        self._context: Any = context  # on some runtimes no `SSLContext`
        self._proxies = proxies
        self._websocket = websocket
        self._opening: dict[socket.socket, Handle] = {}
        self._on_change: Callable[[], object] | None = None
        self._listeners = [Listener(network, sock, self._accepted) for sock in sockets]

    def reload_tls(self, context: Any) -> None:
        """Speak TLS by another context with who comes from now on; see `Server.reload_tls`."""
        if self._context is None:
            raise LocalProtocolError("reload_tls: this server speaks no TLS")
        if isinstance(self._context, SSLContext):  # also where a runtime takes something else on other ways in
            Network.check_tls(self._network, context)
        else:
            self._network.check_tls(context)
        self._context = context

    @property
    def is_opening(self) -> bool:
        """Whether handshakes or headers are under way."""
        return bool(self._opening)

    def stop(self, on_change: Callable[[], object]) -> None:
        """Accept no more, and let the handshakes and headers under way come to their end. Idempotent.

        Args:
            on_change: called when one of them has.
        """
        self._on_change = on_change
        for listener in self._listeners:
            listener.close()

    def close(self) -> None:
        """Accept no more, and end the handshakes and headers under way. Idempotent."""
        for listener in self._listeners:
            listener.close()
        while self._opening:
            self._opening.popitem()[1].cancel()

    def _accepted(self, sock: socket.socket, peer: Address) -> None:
        if self._proxies is None:
            self._begin(sock, peer)
        elif peer in self._proxies:
            told = partial(self._told, sock, peer)
            self._opening[sock] = HeaderReading(self._network, sock, peer, told, self._until())
        else:
            sock.close()
            self._endpoint.refused(peer, Refusal.PROXY_FAILED, f"{peer[0]} is in no network of proxy_protocol")

    def _told(self, sock: socket.socket, proxy: Address, result: Address | Exception) -> None:
        self._leave(sock)
        if isinstance(result, Exception):
            self._endpoint.refused(proxy, Refusal.PROXY_FAILED, result)
        else:
            self._begin(sock, result)

    def _until(self) -> float | None:
        limit = self._endpoint.config.connect_timeout
        return None if limit is None else self._network.time() + limit

    def _begin(self, sock: socket.socket, peer: Address) -> None:
        if self._websocket is None:
            self._begin_raw(sock, peer)
        elif self._websocket.or_raw:
            told = partial(self._told_first, self._websocket, sock, peer)
            self._opening[sock] = FirstByte(self._network, sock, told, self._until())
        else:
            self._begin_websocket(self._websocket, sock, peer)

    def _told_first(
        self, websocket: WebSocketOptions, sock: socket.socket, peer: Address, first: bytes | OSError
    ) -> None:
        self._leave(sock)
        if isinstance(first, OSError):
            self._endpoint.refused(peer, Refusal.WEBSOCKET_FAILED, first)
        elif first == b"G":  # of "GET", and of no frame
            self._begin_websocket(websocket, sock, peer)
        else:
            self._begin_raw(sock, peer)

    def _begin_websocket(self, websocket: WebSocketOptions, sock: socket.socket, peer: Address) -> None:
        from packetcore_sockets._websocket.records import server_records  # wsproto need not be installed

        context = self._context and self._network.tls_over_memory(self._context)
        try:
            records = server_records(websocket, context)

            def done(result: Session[Any] | Exception) -> None:
                self._leave(sock)
                if isinstance(result, Exception):
                    what = Refusal.WEBSOCKET_FAILED if records.is_secured else Refusal.TLS_FAILED
                    self._endpoint.refused(peer, what, result)

            self._opening[sock] = self._network.accept_over(self._endpoint, sock, peer, records, done)
        except OSError as error:
            sock.close()
            self._endpoint.refused(peer, Refusal.TLS_FAILED, error)

    def _begin_raw(self, sock: socket.socket, peer: Address) -> None:
        done = partial(self._opened, sock, peer)
        try:
            opening = self._network.accept(self._endpoint, sock, peer, self._context, done)
        except OSError as error:
            done(error)
        else:
            if opening is not None:
                self._opening[sock] = opening

    def _opened(self, sock: socket.socket, peer: Address, result: Session[Any] | Exception) -> None:
        self._leave(sock)
        if isinstance(result, Exception) and self._context is not None:
            self._endpoint.refused(peer, Refusal.TLS_FAILED)

    def _leave(self, sock: socket.socket) -> None:
        """What was under way has come to something."""
        self._opening.pop(sock, None)
        if self._on_change is not None:
            self._on_change()
