"""A serial line on a made-up loop and port: what pseudo-terminals do not do."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from packetcore import CloseReason, Config, Endpoint, Packet, Session, encode
from packetcore_sockets import Network
from tests.made_up_host import Recorder

if sys.platform == "win32":
    pytest.skip("there are no serial lines on Windows", allow_module_level=True)

from packetcore_sockets._serial import Line, SerialLine, SerialPort

FRAME = encode(Packet(1, b"x" * 20))


class MadeUpPort:
    """A UART that holds what it has not sent yet."""

    device = "/dev/ttyMADEUP"

    def __init__(self) -> None:
        self.written = bytearray()
        self.takes = 1 << 30
        self.held = 0
        self.is_closed = False

    def send(self, data: bytes | bytearray) -> int:
        taken = min(self.takes, len(data))
        if not taken:
            raise BlockingIOError
        self.takes -= taken
        self.written += data[:taken]
        return taken

    def recv(self, size: int) -> bytes:
        raise BlockingIOError

    def waiting(self) -> int:
        return self.held

    def setblocking(self, flag: bool) -> None:
        pass

    def setsockopt(self, *args: object) -> None:
        raise OSError(errno.ENOTSOCK, "no socket")

    def close(self) -> None:
        self.is_closed = True


class MadeUpLoop(Network):
    """Calls what is due when told the time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: list[tuple[float, Callable[[], object]]] = []
        self.writer: Any = None

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[[], object]) -> object:
        return self.call_at(self.now, callback)

    def call_at(self, when: float, callback: Callable[[], object]) -> Any:
        timer = (when, callback)
        self.due.append(timer)

        def cancel() -> None:
            if timer in self.due:
                self.due.remove(timer)

        return SimpleNamespace(cancel=cancel)

    def set_reader(self, sock: Any, callback: Any) -> None:
        pass

    def set_writer(self, sock: Any, callback: Any) -> None:
        self.writer = callback

    def pass_to(self, now: float) -> None:
        while ready := sorted((timer for timer in self.due if timer[0] <= now), key=lambda timer: timer[0]):
            self.due.remove(ready[0])
            self.now = max(self.now, ready[0][0])
            ready[0][1]()
        self.now = now


def opened(byte_time: float = 0.001, **config: Any) -> tuple[MadeUpLoop, MadeUpPort, Session, Recorder]:
    loop, port, handler = MadeUpLoop(), MadeUpPort(), Recorder()
    endpoint = Endpoint[Packet](handler, Config(idle_timeout=None, **config))
    line: Any = port
    return loop, port, SerialLine(loop, endpoint, line, byte_time).session, handler


def test_a_line_is_closed_once_it_has_sent_what_it_holds() -> None:
    loop, port, session, handler = opened()
    session.send(Packet(1))
    session.close()
    port.held = 50
    closed = []
    for now, held in ((100.0, 50), (100.05, 10), (100.06, 0)):
        port.held = held
        loop.pass_to(now)
        closed.append(port.is_closed)
    assert closed == [False, False, True]
    assert handler.named("disconnected") == [("disconnected", CloseReason.LOCAL)]


def test_a_slow_line_is_looked_at_each_second_and_closed_soon_after_its_last_byte() -> None:
    loop, port, session, _ = opened(byte_time=1.0, close_timeout=100.0)
    session.send(Packet(1))
    port.held = 50
    session.close()
    loop.pass_to(100.9)
    port.held = 0
    loop.pass_to(101.0)
    assert port.is_closed


def test_a_line_that_sends_no_more_is_given_up_after_close_timeout() -> None:
    loop, port, session, handler = opened(close_timeout=2.0)
    port.held = 5
    session.close()
    for now in range(1000, 1030):
        loop.pass_to(now / 10)
    assert port.is_closed
    assert loop.now < 103
    assert handler.named("disconnected") == [("disconnected", CloseReason.LOCAL)]
    loop.pass_to(200.0)
    assert loop.due == []


def test_the_time_of_a_frame_on_the_line_is_none_of_the_silence_behind_it() -> None:
    loop, port, session, _ = opened(byte_time=0.01, interframe_delay=1.0)
    for _ in range(3):
        session.send(Packet(1, b"x" * 20))
    loop.pass_to(100.0)
    on_the_line = len(FRAME) * 0.01
    assert (bytes(port.written), session.outstanding) == (FRAME, 3 * len(FRAME))
    loop.pass_to(100.0 + on_the_line)
    assert session.outstanding == 2 * len(FRAME)
    loop.pass_to(100.99 + on_the_line)
    assert bytes(port.written) == FRAME
    port.takes = 5
    loop.pass_to(101.0 + on_the_line)
    assert bytes(port.written) == FRAME + FRAME[:5]
    port.takes = 1 << 30
    loop.pass_to(110.0)
    assert bytes(port.written) == FRAME + FRAME[:5], "the third went before the second had gone"
    loop.writer()
    assert bytes(port.written) == 2 * FRAME
    loop.pass_to(110.9 + on_the_line)
    assert bytes(port.written) == 2 * FRAME
    loop.pass_to(111.0 + on_the_line)
    assert bytes(port.written) == 3 * FRAME


def test_a_close_of_a_bus_waits_for_the_last_frame() -> None:
    loop, port, session, handler = opened(byte_time=0.01, interframe_delay=0.5)
    for _ in range(2):
        session.send(Packet(1, b"x" * 20))
    session.close()
    closed = []
    for now in range(1000, 1020):
        loop.pass_to(now / 10)
        closed.append(port.is_closed)
    assert not any(closed[:7])
    assert (bytes(port.written), port.is_closed) == (2 * FRAME, True)
    assert handler.named("disconnected") == [("disconnected", CloseReason.LOCAL)]


def test_a_line_that_is_closed_with_bytes_unsent_drops_them_first() -> None:
    """The system would else wait for them, up to half a minute, in `close`."""
    verbs: list[str] = []
    port: Any = SimpleNamespace(
        out_waiting=7, reset_output_buffer=lambda: verbs.append("reset"), close=lambda: verbs.append("close")
    )
    SerialPort("/dev/x", port).close()
    port.out_waiting = 0
    SerialPort("/dev/x", port).close()
    assert verbs == ["reset", "close", "close"]


def test_a_port_that_is_closed_has_no_descriptor() -> None:
    master, slave = os.openpty()
    try:
        port = Line(os.ttyname(slave), 9600).open()
        assert port.fileno() not in (-1, master, slave)
        with pytest.raises(BlockingIOError):
            port.recv(1)
        port.close()
        assert port.fileno() == -1
    finally:
        os.close(master)
        os.close(slave)


def test_without_pyserial_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(ImportError, match=r"packetcore-sockets\[serial\]"):
        Line("/dev/ttyUSB0", 9600)


def test_a_byte_takes_its_bits() -> None:
    assert Line("/dev/x", 9600).byte_time == 10 / 9600
    assert Line("/dev/x", 9600, parity="E", stopbits=2).byte_time == 12 / 9600
    assert Line("/dev/x", 9600, bytesize=7).byte_time == 9 / 9600


def test_the_mode_of_rs_485_is_the_port_s(monkeypatch: pytest.MonkeyPatch) -> None:
    from serial import Serial
    from serial.rs485 import RS485Settings

    asked: list[object] = []

    def open_port(port: Any) -> None:
        asked.append(port.rs485_mode)
        raise OSError(errno.EACCES, "refused")

    monkeypatch.setattr(Serial, "open", open_port)
    settings = RS485Settings()
    with pytest.raises(PermissionError, match="/dev/x"):
        Line("/dev/x", 9600, rs485=settings).open()
    assert asked == [settings]


def test_nothing_is_left_open_where_opening_fails(tmp_path: Any) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    line = Line(plain, 9600)
    before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        with pytest.raises(OSError, match="it is no serial line"):
            line.open()
    assert len(os.listdir("/dev/fd")) == before
