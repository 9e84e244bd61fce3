"""Serial lines, by pyserial: a device in place of host and port.

pyserial opens a device and sets its speed; what goes and comes is read and written here, on its
descriptor. Windows has none for its COM ports that a loop could watch: there are no serial lines there.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, cast

from packetcore import Carrier, Endpoint, Handle, Session
from packetcore_sockets._network import Network
from packetcore_sockets._stream import StreamSocket

if TYPE_CHECKING:
    import serial

DRAIN_CHECK = 0.005
"""Seconds at least between two looks whether a line has sent all before it is closed: no event tells."""

OPTIONS = ("bytesize", "parity", "stopbits", "rtscts", "xonxoff", "dsrdtr")
"""What `serial.Serial` takes and is not the runtime's: that waits, not the line."""


class Line:
    """A device and how it is to be opened.

    Args:
        device: its path, as "/dev/ttyUSB0".
        baudrate: bits a second.
        exclusive: whether nobody else who asks may open it meanwhile.
        rs485: for the system's own RS-485 mode, which turns the transmitter on and off, a
            `serial.rs485.RS485Settings`.
        options: what `serial.Serial` takes, of `OPTIONS`.

    Raises:
        ImportError: pyserial is not installed.
        OSError: the system has no descriptors for serial lines.
        TypeError: there is no such option.
        ValueError: the device is empty, or a value is out of its range.
    """

    def __init__(
        self,
        device: str | os.PathLike[str],
        baudrate: int,
        *,
        exclusive: bool = True,
        rs485: Any = None,
        **options: Any,
    ) -> None:
        self.device = os.fspath(device)
        if not self.device:
            raise ValueError("device='' names no serial line")
        for name in options:
            if name not in OPTIONS:
                raise TypeError(
                    f"{name}={options[name]!r} is no option of a serial line: those are {', '.join(OPTIONS)}"
                )
        if os.name == "nt":
            raise OSError(errno.ENOTSUP, "on Windows a serial line has no descriptor that a loop could watch")
        try:
            from serial import Serial
        except ImportError:
            raise ImportError("serial lines need pyserial: pip install 'packetcore-sockets[serial]'") from None
        # With this `inter_byte_timeout` a read that finds nothing is told from one on a line that has gone.
        known: dict[str, Any] = {"inter_byte_timeout": 0, "exclusive": exclusive}
        self._new = partial(Serial, baudrate=baudrate, **known, **options)
        self._rs485 = rs485
        port = self._new()  # finds out now whether the options are any
        bits = 1 + port.bytesize + (port.parity != "N") + port.stopbits
        self.byte_time = bits / port.baudrate
        """Seconds that one byte takes on the line."""

    def open(self) -> SerialPort:
        """Open it. That waits for nothing: neither for a carrier nor for what was sent before.

        Raises:
            OSError: it is not there, no serial line, in use, or this user may not open it.
            ValueError: the line has no such baud rate.
        """
        port = self._new()
        port.port = self.device
        if self._rs485 is not None:
            port.rs485_mode = self._rs485
        try:
            port.open()
            os.set_blocking(port.fileno(), False)
        except OSError as error:
            port.close()
            raise self._explained(error) from None
        except BaseException:
            port.close()
            raise
        return SerialPort(self.device, port)

    def _explained(self, error: OSError) -> OSError:
        number = error.errno
        if number is None and error.__context__ is not None and error.__context__.args:
            number = error.__context__.args[0]  # of a termios.error
        if number in (errno.EAGAIN, errno.EWOULDBLOCK):  # it is locked
            return OSError(errno.EBUSY, f"opening {self.device!r}: the serial line is in use already")
        if number == errno.ENOTTY:
            return OSError(number, f"opening {self.device!r}: it is no serial line")
        if not isinstance(number, int):
            return OSError(f"opening {self.device!r}: {error}")
        return OSError(number, f"opening {self.device!r}: {os.strerror(number)}")


class SerialPort:
    """An open device, as much of a socket as a `StreamSocket` asks of one.

    Args:
        device: its path.
        port: open, by pyserial.
    """

    def __init__(self, device: str, port: serial.Serial) -> None:
        self.device = device
        self._port = port

    def fileno(self) -> int:
        """See `socket.socket`: -1 once it is closed."""
        fd = self._port.fd
        return -1 if fd is None else int(fd)

    def recv(self, size: int) -> bytes:
        """Read what has come, at most `size` bytes.

        Raises:
            BlockingIOError: nothing has.
            OSError: the line has gone: its adapter was pulled, or of a pseudo-terminal the other side closed.
        """
        data = os.read(self.fileno(), size)
        if not data:
            raise OSError(errno.EIO, f"{self.device!r} hung up")
        return data

    def send(self, data: bytes | bytearray) -> int:
        """Write as many bytes as the system takes, and give how many."""
        return os.write(self.fileno(), data)

    def waiting(self) -> int:
        """How many bytes the system has yet to send, as far as it knows."""
        with suppress(OSError):
            return self._port.out_waiting
        return 0

    def setblocking(self, flag: bool) -> None:
        """Nothing: it never waits."""

    def setsockopt(self, *args: object) -> NoReturn:
        """Refuse: a line is neither reset nor held back.

        Raises:
            OSError: always.
        """
        raise OSError(errno.ENOTSOCK, "a serial line has no options")

    def close(self) -> None:
        """Close it at once: without this the system would wait for what the line does not take."""
        with suppress(OSError):
            if self.waiting():
                self._port.reset_output_buffer()
        with suppress(OSError):
            self._port.close()


class SerialLine(StreamSocket):
    """The `packetcore.Host` of a serial line, which it owns. A line has no end of its own: once this
    side has sent all, that is the end of the session too.

    Args:
        network: watches the line.
        endpoint: whose session it is.
        port: open.
        byte_time: seconds that one byte takes.
    """

    def __init__(self, network: Network, endpoint: Endpoint[Any], port: SerialPort, byte_time: float) -> None:
        self._port = port
        self._byte_time = byte_time
        self._is_paced = endpoint.config.interframe_delay > 0
        self._quiet_at = network.time()  # when the line has sent what it was given
        self._check: Handle | None = None
        like_socket = cast(socket.socket, port)
        super().__init__(network, endpoint, like_socket, (port.device,), None, network.new_session)

    def write(self, data: bytes) -> int:
        """See `packetcore.Host`."""
        taken = super().write(data)
        return self._told_later(taken) if self._is_paced else taken

    def carrier(self) -> Carrier:
        """See `packetcore.Host`."""
        return Carrier("serial", (self._port.device,))

    def _send_on(self) -> None:
        if not self._is_paced:
            super()._send_on()
        else:
            self._told_later(self._push())

    def _told_later(self, taken: int) -> int:
        """Say that bytes have gone once they have left the line, as silence between frames counts from then."""
        if taken:
            self._quiet_at = max(self._quiet_at, self._time()) + taken * self._byte_time
            self._loop.call_at(self._quiet_at, partial(self._left, taken))
        return 0

    def _left(self, taken: int) -> None:
        if not self._is_gone:
            self.session.sent_bytes(taken, self._time())

    def _finish(self) -> None:
        if not self._may_finish():
            return
        now = self._time()
        if waiting := self._port.waiting():
            if self._check is None:
                at = now + min(1.0, max(DRAIN_CHECK, waiting * self._byte_time))
                self._check = self._loop.call_at(at, self._check_again)
        elif self._is_closing:
            self._lose(None)
        else:
            self._is_finishing = False
            self.session.eof(now)

    def _check_again(self) -> None:
        self._check = None
        self._finish()

    def _release(self) -> None:
        if self._check is not None:
            self._check.cancel()
        super()._release()


class SerialDial:
    """One try to open a serial line: see `Dial`.

    Args:
        network: watches the line, and begins the session.
        line: which.
        endpoint: whose session it is to be.
        done: called once, but not before this returns, with the session or with what went wrong.
    """

    def __init__(
        self,
        network: Network,
        line: Line,
        endpoint: Endpoint[Any],
        done: Callable[[Session[Any] | Exception], object],
    ) -> None:
        self._network = network
        self._line = line
        self._endpoint = endpoint
        self._done = done
        self._next = network.call_at(network.time(), self._open)

    def cancel(self) -> None:
        """Give up and tell nobody. Idempotent."""
        self._next.cancel()

    def _open(self) -> None:
        try:
            port = self._line.open()
        except Exception as error:
            self._done(error)
        else:
            self._done(SerialLine(self._network, self._endpoint, port, self._line.byte_time).session)
