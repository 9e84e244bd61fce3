"""Unix sockets: a path in place of host and port."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from ssl import SSLContext
from typing import Any

from packetcore import Endpoint, Handle, Session
from packetcore_sockets._handshake import Handshake
from packetcore_sockets._listening import Listening
from packetcore_sockets._network import Network
from packetcore_sockets._records import Records
from packetcore_sockets._tls import TLSRecords

FULL_PAUSE = 0.01
"""Seconds until a client tries again whose server has its backlog full: no event tells that it has room."""


def path_of(path: str | os.PathLike[str]) -> str:
    """A path for a Unix socket, as text.

    Raises:
        ValueError: it is empty.
    """
    text = os.fspath(path)
    if not text:
        raise ValueError("path='' names no socket")
    return text


@contextmanager
def unix_listener(path: str, mode: int | None, backlog: int) -> Iterator[socket.socket]:
    """Listen on a path. A socket that is there and on which nobody listens is replaced. Where the block fails,
    the socket is closed and its file removed.

    Args:
        path: where; one that begins with a zero byte is of Linux's abstract namespace, which has no files.
        mode: the permissions of the socket's file, as 0o660; `None` leaves them to the umask. They hold
            before anybody can connect.
        backlog: how many connections may wait to be accepted.

    Raises:
        OSError: somebody listens there (`EADDRINUSE`), there is something else than a socket
            (`EEXIST`), or the path is too long or its directory not there.
    """
    has_file = not path.startswith("\0")
    if has_file:
        _remove_stale(path)
    with ExitStack() as opened:
        sock = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            sock.bind(path)
            if has_file:
                opened.callback(_unlink, path)
            if has_file and mode is not None:
                os.chmod(path, mode)
            sock.listen(backlog)
        except OSError as error:
            raise OSError(error.errno, f"listening on {path!r}: {error.strerror or error}") from None
        yield sock
        opened.pop_all()


def _unlink(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def _remove_stale(path: str) -> None:
    try:
        kind = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise FileExistsError(errno.EEXIST, "there is something that is no socket", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            _unlink(path)
            return
        except BlockingIOError:  # one whose backlog is full
            pass
    raise OSError(errno.EADDRINUSE, "somebody listens there", path)


class UnixListening(Listening):
    """A server's way in by a path, whose file goes with it: unless another server's has taken its place."""

    def __init__(
        self, network: Network, endpoint: Endpoint[Any], sock: socket.socket, path: str, context: SSLContext | None
    ) -> None:
        super().__init__(network, endpoint, [sock], context)
        self._path = path
        self._file = None if path.startswith("\0") else _identity(path)

    def stop(self, on_change: Callable[[], object]) -> None:
        """See `Listening`."""
        super().stop(on_change)
        self._remove()

    def close(self) -> None:
        """See `Listening`."""
        super().close()
        self._remove()

    def _remove(self) -> None:
        with suppress(OSError):
            if self._file is not None and _identity(self._path) == self._file:
                os.unlink(self._path)
        self._file = None


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


class UnixDial:
    """One try to connect to a path, within `connect_timeout`: see `Dial`.

    Args:
        network: watches the socket, and begins the session.
        path: where to.
        context: what to speak TLS by; `None` for none.
        server_hostname: the name to verify in the server's certificate.
        endpoint: whose session it is to be.
        done: called once, but not before this returns, with the session or with what went wrong.
    """

    def __init__(
        self,
        network: Network,
        path: str,
        context: SSLContext | None,
        server_hostname: str | None,
        endpoint: Endpoint[Any],
        done: Callable[[Session[Any] | Exception], object],
    ) -> None:
        self._network = network
        self._endpoint = endpoint
        self._path = path
        self._context = context
        self._name = server_hostname
        self._done = done
        self._limit = endpoint.config.connect_timeout
        self._until = None if self._limit is None else network.time() + self._limit
        self._handshake: Handshake | None = None
        self._next: Handle | None = network.call_at(network.time(), self._try)

    def cancel(self) -> None:
        """Give up and tell nobody. Idempotent."""
        if self._next is not None:
            self._next.cancel()
        if self._handshake is not None:
            self._handshake.cancel()

    def _try(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.connect(self._path)
        except BlockingIOError:
            sock.close()
            self._wait()
        except OSError as error:
            sock.close()
            self._done(OSError(error.errno, f"connecting to {self._path!r}: {error.strerror or error}"))
        else:
            self._secure(sock)

    def _wait(self) -> None:
        now = self._network.time()
        if self._until is not None and now >= self._until:
            self._done(TimeoutError(f"connecting to {self._path!r} took longer than connect_timeout={self._limit} s"))
        else:
            self._next = self._network.call_at(now + FULL_PAUSE, self._try)

    def _secure(self, sock: socket.socket) -> None:
        done = partial(self._secured, sock)
        if self._context is None:
            done(None)
            return
        try:
            records = TLSRecords(self._context, server_hostname=self._name)
            self._handshake = Handshake(self._network, sock, records, done, until=self._until)
        except Exception as error:
            sock.close()
            self._done(error)

    def _secured(self, sock: socket.socket, result: Records | OSError | None) -> None:
        if isinstance(result, OSError):
            self._done(result)
        else:
            self._done(self._network.begin(self._endpoint, sock, (self._path,), result))
