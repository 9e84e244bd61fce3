"""Threads and the end of the program.

A session belongs to its runtime's thread, others have one way to it, and a handler that ends the
program ends the server.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from packetcore import Packet, Session, WrongThread, encode
from packetcore_conformance.peer import DEADLINE, Peer
from packetcore_conformance.recorder import Recorder
from packetcore_conformance.rig import Rig

PING = Packet(1, b"ping")


def test_a_send_from_a_foreign_thread_is_sent_or_a_clear_error(rig: Rig) -> None:
    server = rig.serve(Recorder())
    peer = rig.peer(server)
    (session,) = rig.sessions(server, 1)
    refused = ""
    try:
        for _ in range(100):
            session.send(PING)
    except WrongThread as error:
        refused = str(error)
    if refused:
        assert "call_soon" in refused, "the error does not say what to use"
    else:
        assert peer.receive(100 * len(encode(PING))) == encode(PING) * 100, "what another thread sent vanished"


def test_call_soon_runs_on_the_session_s_own_thread_whoever_calls_it(rig: Rig) -> None:
    threads: list[int] = []

    def send(session: Session, packet: Packet) -> None:
        threads.append(threading.get_ident())
        session.send(packet)

    server = rig.serve(Recorder(connected=lambda session: threads.append(threading.get_ident())))
    peer = rig.peer(server)
    (session,) = rig.sessions(server, 1)
    server.call_soon(send, session, PING)
    assert peer.receive(len(encode(PING))) == encode(PING), "what call_soon was given was not run"
    session.call_soon(send, session, PING)
    assert peer.receive(len(encode(PING))) == encode(PING)
    assert threading.get_ident() not in threads
    assert len(set(threads)) == 1, "call_soon ran a function on another thread than the handler's"


def test_what_a_function_given_to_call_soon_raises_harms_nobody(rig: Rig) -> None:
    server = rig.serve(Recorder())
    peer = rig.peer(server)
    (session,) = rig.sessions(server, 1)
    server.call_soon(int, "no number")
    server.call_soon(session.send, PING)
    assert peer.receive(len(encode(PING))) == encode(PING)


@contextmanager
def ending_server(transport: str, kind: str) -> Iterator[tuple[tuple[str, int], subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "packetcore_conformance.ending_process", transport, kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            host, port = process.stdout.readline().split()
            yield (host, int(port)), process
        finally:
            process.kill()


@pytest.mark.parametrize("kind", ["handler", "function"])
def test_system_exit_in_the_application_ends_the_server(transport: str, kind: str) -> None:
    with ending_server(transport, kind) as (address, process):
        one, other = Peer.connect(address), Peer.connect(address)
        for peer in (one, other):
            peer.send(encode(PING))
            assert peer.receive(len(encode(PING))) == encode(PING)
        one.send(encode(Packet(7)))
        for peer in (one, other):
            peer.wait_closed()  # or the deadline passes: it was left to itself
            peer.close()
        if kind == "handler":
            assert process.stdout is not None
            told = sorted(process.stdout.readline().split()[-1] for _ in range(4))
            assert told == ["1", "2", "HANDLER_ERROR", "SHUTDOWN"], "a session was not told of the end"
        _until_refused(address)


def _until_refused(address: tuple[str, int]) -> None:
    """The listening socket is closed at once or at the end of the loop's turn, never later."""
    waiting = threading.Event()
    for _ in range(int(DEADLINE / 0.01)):
        try:
            Peer.connect(address).close()
        except ConnectionError:
            return
        waiting.wait(0.01)
    raise AssertionError("the port goes on taking connections that nobody serves")
