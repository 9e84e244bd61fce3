"""A recorder writes what sessions say, in so many files of such a size, and never holds them up."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from packetcore import Config, Packet, Session, encode
from packetcore_tap import MIN_BYTES, Chunk, Ended, Gap, Heard, Recorder, Reset, Side, _spool, hear
from tests.made_up_host import Rig

ONE = encode(Packet(1, b"one"))


def heard_in(path: Path) -> list[Heard]:
    with path.open("rb") as file:
        return list(hear(file))


def chunks(path: Path, side: Side = Side.CLIENT) -> list[bytes]:
    return [each.data for each in heard_in(path) if isinstance(each, Chunk) and each.sender is side]


def session_of(recorder: Recorder, peer: str = "192.0.2.1") -> Session:
    session, _ = Rig(Config(tap=recorder, max_outstanding=None)).open(peer)
    return session


class Disk:
    """Stands in for the file: stands still, or is full, as a test says."""

    def __init__(self) -> None:
        self.may_write = threading.Event()
        self.may_write.set()
        self.is_writing = threading.Event()
        self.room = 1 << 40

    def file(self, path: Path, mode: str, opener: Any) -> DiskFile:
        return DiskFile(path, mode, self)


class DiskFile(FileIO):
    def __init__(self, path: Path, mode: str, disk: Disk) -> None:
        super().__init__(path, mode)
        self.disk = disk

    def write(self, data: Any, /) -> int:
        self.disk.is_writing.set()
        assert self.disk.may_write.wait(10)
        size = min(len(data), self.disk.room)
        if not size:
            raise OSError(28, "No space left on device")
        self.disk.room -= size
        return super().write(memoryview(data)[:size])


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()
    monkeypatch.setattr(_spool, "FileIO", disk.file)
    yield disk
    disk.may_write.set()


def test_times_ends_and_the_session_are_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "field.pcapng"
    times = iter(range(10**18, 2 * 10**18, 1000))
    with Recorder(path, clock=lambda: next(times)) as recorder:
        session = session_of(recorder)
        session.received(ONE, 100.0)
        session.received(ONE + ONE, 100.0)
        session.eof(100.0)
        session.lost(None, 100.0)
    heard = heard_in(path)
    assert [type(each) for each in heard] == [Chunk, Chunk, Ended, Ended]
    assert [each.time for each in heard[:2]] == [10**18 + 1000, 10**18 + 2000]
    assert heard[0].conversation.comments == ["session 1 of a server, tcp"]


@pytest.mark.parametrize(("error", "side"), [(ConnectionResetError(), Side.CLIENT), (None, Side.SERVER)])
def test_who_broke_it_off_is_in_the_file(tmp_path: Path, error: Exception | None, side: Side) -> None:
    path = tmp_path / "field.pcapng"
    with Recorder(path) as recorder:
        session = session_of(recorder)
        session.received(ONE, 100.0)
        if error is None:
            session.abort()
        session.lost(error, 100.0)
    last = heard_in(path)[-1]
    assert (type(last), last.sender) == (Reset, side)


def test_files_turn_and_all_of_them_have_no_more_than_was_said(tmp_path: Path) -> None:
    path = tmp_path / "field.pcapng"
    path.write_bytes(b"an older recording")
    data = bytes(100_000)
    with Recorder(path, max_bytes=MIN_BYTES, keep=3) as recorder:
        session, other = session_of(recorder), session_of(recorder, "192.0.2.2")
        for count in range(50):
            (session, other)[count % 2].received(data, 100.0)
    names = ["field.1.pcapng", "field.2.pcapng", "field.pcapng"]
    assert sorted(os.listdir(tmp_path)) == names
    assert all(900_000 < (tmp_path / name).stat().st_size <= MIN_BYTES for name in names[:2])
    kept = [chunks(tmp_path / name) for name in (names[1], names[0], names[2])]
    assert {chunk for some in kept for chunk in some} == {data}
    for name in names:  # each by itself says whose they are
        comments = {each.conversation.comments[0] for each in heard_in(tmp_path / name)}
        assert comments == {"session 1 of a server, tcp"}


def test_an_older_recording_is_kept_and_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "field.pcapng"
    for name in ("one", "two", "three"):
        with Recorder(path, keep=2) as recorder:
            session_of(recorder).received(name.encode(), 100.0)
    assert (chunks(path), chunks(tmp_path / "field.1.pcapng")) == ([b"three"], [b"two"])
    assert len(os.listdir(tmp_path)) == 2
    if os.name == "posix":  # what was said over TLS is nobody else's business
        assert {os.stat(tmp_path / name).st_mode & 0o777 for name in os.listdir(tmp_path)} == {0o600}


def test_a_slow_disk_holds_nobody_up_and_what_is_left_out_is_said_where_it_is_missing(
    tmp_path: Path, disk: Disk
) -> None:
    path = tmp_path / "field.pcapng"
    size = 1 << 20
    with Recorder(path) as recorder:
        session = session_of(recorder)
        assert disk.is_writing.wait(10)
        disk.may_write.clear()
        for number in range(40):
            session.received(bytes([number]) * size, 100.0)
        late = session_of(recorder, "192.0.2.9")  # begins while there is no room: it is not recorded at all
        late.received(ONE, 100.0)
        missed = recorder.missed
        disk.may_write.set()
        wait_for(lambda: not recorder.recording._spool.is_full)
        session.received(ONE, 100.0)
        session.lost(None, 100.0)
    assert 10 < missed < 40
    heard = heard_in(path)
    whole = [each.data[:1] for each in heard if isinstance(each, Chunk) and len(each.data) == size]
    assert whole == [bytes([number]) for number in range(40 - missed + 1)]
    gap, last = heard[len(whole) : len(whole) + 2]
    assert isinstance(gap, Gap)
    assert gap.size == (missed - 1) * size
    assert isinstance(last, Chunk)
    assert last.data == ONE
    assert f"not recorded before this: {size} bytes that the client sent" in "\n".join(last.conversation.comments)
    assert {each.conversation.client.address for each in heard} == {last.conversation.client.address}


def test_a_full_disk_ends_the_recording_with_one_line_and_leaves_what_is_whole(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "field.pcapng"
    disk.room = 200_000
    with Recorder(path) as recorder:
        session = session_of(recorder)
        for _ in range(10):
            session.received(bytes(50_000), 100.0)
            wait_for(lambda: recorder.error is not None or not recorder.recording._spool._waiting)
        session.received(ONE, 100.0)  # and goes on
        assert session.stats.packets_received == 1
        session.lost(None, 100.0)
    assert recorder.error is not None
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [
        f"recording to {path} has ended: [Errno 28] No space left on device"
    ]
    assert set(chunks(path)) == {bytes(50_000)}  # no half block is left


def wait_for(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(10_000):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("never came true")


def test_a_chunk_that_no_file_can_hold_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "field.pcapng"
    with Recorder(path, max_bytes=MIN_BYTES) as recorder:
        session = session_of(recorder)
        session.received(bytes(MIN_BYTES), 100.0)
        session.received(ONE, 100.0)
    assert recorder.missed == 1
    assert [type(each) for each in heard_in(path)] == [Gap, Chunk]


def test_a_recorder_that_is_closed_hears_nothing_and_keeps_no_session(tmp_path: Path) -> None:
    path = tmp_path / "field.pcapng"
    recorder = Recorder(path)
    session = session_of(recorder)
    recorder.close()
    recorder.close()
    session.received(ONE, 100.0)
    session_of(recorder).received(ONE, 100.0)
    session.lost(None, 100.0)
    assert heard_in(path) == []
    assert session not in recorder.recording._writer


def test_sessions_of_many_threads_share_a_recorder(tmp_path: Path) -> None:
    path = tmp_path / "field.pcapng"
    with Recorder(path) as recorder:

        def talk(number: int) -> None:
            session = session_of(recorder, f"192.0.2.{number}")
            for at in range(200):
                session.received(bytes([number, at]), 100.0)
            session.lost(None, 100.0)

        threads = [threading.Thread(target=talk, args=(number,)) for number in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    told = chunks(path)
    for number in range(1, 5):
        assert [chunk[1] for chunk in told if chunk[0] == number] == list(range(200))


def test_wrong_limits_and_paths_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_bytes=1048575 must be at least 1048576"):
        Recorder(tmp_path / "x", max_bytes=MIN_BYTES - 1)
    with pytest.raises(ValueError, match="keep=0 must be at least 1"):
        Recorder(tmp_path / "x", keep=0)
    with pytest.raises(FileNotFoundError):
        Recorder(tmp_path / "nowhere" / "x")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_named_pipe_is_written_as_it_is_and_never_renamed(tmp_path: Path) -> None:
    path, got = tmp_path / "pipe", bytearray()
    os.mkfifo(path)

    def read() -> None:
        with path.open("rb") as pipe:
            got.extend(pipe.read())

    reader = threading.Thread(target=read)
    reader.start()
    with Recorder(path, max_bytes=MIN_BYTES) as recorder:
        session = session_of(recorder)
        for _ in range(30):
            session.received(bytes(100_000), 100.0)
    reader.join()
    assert os.listdir(tmp_path) == ["pipe"]
    assert path.is_fifo()
    (tmp_path / "got").write_bytes(got)
    assert chunks(tmp_path / "got") == [bytes(100_000)] * 30
