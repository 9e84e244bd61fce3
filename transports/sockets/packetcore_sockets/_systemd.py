"""What a service manager such as systemd hands to a service, and is told by it: the sockets of
sd_listen_fds(3), and the messages of sd_notify(3). Without one there are no sockets, and nothing is told."""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import Mapping, MutableMapping

LISTEN_FDS_START = 3
"""The first descriptor that is handed over (SD_LISTEN_FDS_START)."""

NOTIFY_PATIENCE = 1.0
"""Seconds that a message may wait for room; one of the watchdog does not wait."""

_LISTEN = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
_NOTIFY = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")

_log = logging.getLogger("packetcore")


def has_inherited_sockets(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether `inherited_sockets` has any to give."""
    return environ.get("LISTEN_PID") == str(os.getpid()) and environ.get("LISTEN_FDS", "0") != "0"


def inherited_sockets(
    environ: MutableMapping[str, str] = os.environ, *, name: str | None = None, unset: bool = True
) -> list[socket.socket]:
    """The sockets that systemd has opened for this process (socket activation), in the order of the
    unit: for `serve(handler, socket=...)`. They are not inherited further.

    Args:
        environ: tells of them. Variables that are for another process give none.
        name: only those with this name, `FileDescriptorName=` of the socket unit. Ask for one name after
            the other with `unset=False`: a socket is to be taken once.
        unset: take the variables away, so that no child takes the sockets for its own.

    Raises:
        ValueError: a variable is not what it should be.
        OSError: a descriptor is not open, or is no socket.
    """
    is_ours = has_inherited_sockets(environ)
    count, names = environ.get("LISTEN_FDS", ""), environ.get("LISTEN_FDNAMES")
    if unset:
        for variable in _LISTEN:
            environ.pop(variable, None)
    if not is_ours:
        return []
    descriptors = range(LISTEN_FDS_START, LISTEN_FDS_START + _positive("LISTEN_FDS", count))
    if name is not None:
        given = (names or "").split(":")
        if len(given) != len(descriptors):
            raise ValueError(f"LISTEN_FDNAMES={names!r} does not name the {len(descriptors)} of LISTEN_FDS")
        return _opened([descriptor for descriptor, each in zip(descriptors, given, strict=True) if each == name])
    return _opened(descriptors)


def socket_of(descriptor: int) -> socket.socket:
    """An open descriptor as a socket, which is not inherited further.

    Raises:
        OSError: it is not open, or no socket.
        ValueError: it is negative.
    """
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise OSError(error.errno, f"descriptor {descriptor}: {os.strerror(error.errno or errno.EBADF)}") from None
    sock.set_inheritable(False)
    return sock


class Notifier:
    """Tells a service manager how the service is (sd_notify(3)). Where there is none, or it cannot be
    reached, nothing happens; the log says so once.

    Args:
        environ: `NOTIFY_SOCKET` says where it hears, a path, or behind "@" a name of Linux's abstract
            namespace; `WATCHDOG_USEC` and `WATCHDOG_PID` whether it wants to hear of us regularly. All
            three are taken away, so that no child speaks for us.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        address, usec, pid = (environ.pop(variable, None) for variable in _NOTIFY)
        self._address: str | None = None
        self._has_warned = False
        self.watchdog: float | None = None
        """Seconds within which it restarts a service that it hears no `WATCHDOG=1` of; `None` for never.
        Send it twice as often."""
        if not address:
            return
        if address[0] not in "/@" or len(address) < 2 or not hasattr(socket, "AF_UNIX"):
            self._warn(f"NOTIFY_SOCKET={address!r} is no Unix socket")
            return
        self._address = "\0" + address[1:] if address[0] == "@" else address
        if usec is not None and pid in (None, str(os.getpid())):
            try:
                self.watchdog = _positive("WATCHDOG_USEC", usec) / 1e6
            except ValueError as error:
                self._warn(str(error))

    def __bool__(self) -> bool:
        """Whether anybody is to be told."""
        return self._address is not None

    def ready(self, status: str = "") -> None:
        """The service has started, or has its new configuration."""
        self.send("READY=1", *_status(status))

    def reloading(self) -> None:
        """The service takes a new configuration; `ready` follows, whether it could or not."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str = "") -> None:
        """The service ends."""
        self.send("STOPPING=1", *_status(status))

    def alive(self) -> None:
        """The service works. It waits for nothing, so that it may be said by what it is about."""
        self.send("WATCHDOG=1", patience=0.0)

    def send(self, *assignments: str, patience: float = NOTIFY_PATIENCE) -> None:
        """Send one message.

        Args:
            assignments: as "STATUS=...", without line ends.
            patience: for how many seconds at most to wait for room.
        """
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(patience)
                sock.sendto("\n".join(assignments).encode("utf-8", "surrogateescape"), self._address)
        except (OSError, ValueError) as error:  # ValueError: a path that is none
            self._warn(f"the service manager cannot be told {assignments[0]}: {error}")

    def _warn(self, text: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            _log.warning("%s", text)


def _status(status: str) -> list[str]:
    return [f"STATUS={' '.join(status.split())}"] if status else []


def _positive(variable: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text) > 0):
        raise ValueError(f"{variable}={text[:80]!r} is no number above 0")
    return int(text)


def _opened(descriptors: range | list[int]) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for descriptor in descriptors:
            sockets.append(socket_of(descriptor))
    except (OSError, OverflowError):
        for sock in sockets:
            sock.close()
        raise
    return sockets
