"""Dialling.

Each address of a name is tried, beside those that do not answer (RFC 8305), no look-up holds up the
loop, and nothing is left of a failure.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from packetcore import Address, Backoff, Config, Driver, Handler, Packet, ServerBase, encode
from packetcore_conformance.certificates import Certificates
from packetcore_conformance.descriptors import are_listed, expect_at_most, open_descriptors
from packetcore_conformance.peer import DEADLINE
from packetcore_conformance.recorder import Recorder, echo
from packetcore_conformance.resolver import NAME, Resolver
from packetcore_conformance.rig import Rig

PING = encode(Packet(1, b"ping"))
Looking = Callable[[Rig, int, Handler], object]

LOOK_UPS: dict[str, Looking] = {
    "connect": lambda rig, port, handler: rig.driver.connect(NAME, port, handler),
    "connect_udp": lambda rig, port, handler: rig.connect_udp((NAME, port), handler),
    "serve": lambda rig, port, handler: rig.serve(handler, host=NAME),
    "serve_udp": lambda rig, port, handler: rig.serve_udp(handler, host=NAME),
}


def test_each_address_of_a_name_is_tried(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    server = rig.serve(echo())
    resolver = Resolver(monkeypatch, "127.0.0.2", "::1", "127.0.0.1")  # nobody listens on the first two
    resolver.answers.set()
    handler = Recorder()
    try:
        session = rig.driver.connect(NAME, server.address[1], handler)
    except OSError as error:
        if not resolver.asked:
            pytest.skip("the runtime has a resolver of its own")
        raise AssertionError("connect gave up before it had tried each address of a name") from error
    rig.call(session.send, Packet(1, b"ping"))
    assert handler.wait("packet_received") == [Packet(1, b"ping")]
    rig.call(session.abort)


def connect_by_name(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, port: int, *hosts: str, **options: Any
) -> Callable[[], Any]:
    """What connects to a name that has these addresses."""
    resolver = Resolver(monkeypatch, *hosts)
    resolver.answers.set()

    def connect() -> Any:
        try:
            return rig.driver.connect(NAME, port, Recorder(), **options)
        except OSError:
            if not resolver.asked:
                pytest.skip("the runtime has a resolver of its own")
            raise

    return connect


@contextmanager
def deaf(*addresses: Address) -> Iterator[None]:
    """Have addresses whose attempts to connect get no answer: their accept queues are full."""
    with ExitStack() as cleanup:
        for address in addresses:
            server = cleanup.enter_context(socket.create_server(address[:2], backlog=0))
            for _ in range(4):
                clog = cleanup.enter_context(socket.socket())
                clog.setblocking(False)
                clog.connect_ex(server.getsockname())
        yield


def test_after_a_refusal_the_next_address_is_tried_at_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    port = rig.serve(echo()).address[1]
    connect = connect_by_name(rig, monkeypatch, port, "127.0.0.2", "127.0.0.1", attempt_delay=2.0)
    began = time.monotonic()
    session = connect()
    assert time.monotonic() - began < 1.5, "an address that refuses costs the delay of one that is silent"
    assert rig.call(lambda: session.peer) == ("127.0.0.1", port)
    rig.call(session.abort)


@are_listed
def test_an_address_that_never_answers_costs_a_delay_and_no_socket(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    port = rig.serve(echo()).address[1]
    connect = connect_by_name(rig, monkeypatch, port, "127.0.0.2", "127.0.0.1", attempt_delay=0.1)
    with deaf(("127.0.0.2", port)):

        def reach() -> None:
            began = time.monotonic()
            session = connect()
            assert 0.05 < time.monotonic() - began < DEADLINE / 2, "the silent address held up the other"
            assert rig.call(lambda: session.peer) == ("127.0.0.1", port)
            rig.call(session.abort)

        reach()
        before = open_descriptors()
        for _ in range(6):
            reach()
        expect_at_most(before + 3, "an attempt that lost stayed open")


def test_where_no_address_answers_the_error_names_each(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("0.0.0.0", 0))
        port = unused.getsockname()[1]
        refused = connect_by_name(rig, monkeypatch, port, "127.0.0.2", "127.0.0.3")
        with pytest.raises(ConnectionRefusedError) as caught:
            refused()
        for host in ("127.0.0.2", "127.0.0.3"):
            assert f"{host} port {port}: Connection refused" in str(caught.value)


def test_connect_timeout_counts_the_attempts_together_and_tells_of_each(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    brief = Config(connect_timeout=0.4)
    hosts = "127.0.0.2", "127.0.0.3"
    late = connect_by_name(rig, monkeypatch, port, *hosts, attempt_delay=0.1, config=brief)
    with deaf(*((host, port) for host in hosts)), pytest.raises(TimeoutError, match=r"connect_timeout=0\.4") as caught:
        late()
    for host in hosts:
        assert f"{host} port {port}: no answer" in str(caught.value)


@pytest.mark.parametrize("delay", [0.05, 3.0])
def test_a_delay_that_the_rfc_advises_against_is_refused(rig: Rig, delay: float) -> None:
    connect: Any = rig.driver.connect
    with pytest.raises(ValueError, match=f"attempt_delay={delay}"):
        connect("127.0.0.1", 1, Recorder(), attempt_delay=delay)


@pytest.mark.parametrize("name", LOOK_UPS)
def test_a_look_up_that_takes_long_holds_up_nobody(rig: Rig, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if "udp" in name and "udp" not in rig.driver.capabilities():
        pytest.skip("the adapter says that it has no UDP")
    server = rig.serve(echo())
    peer = rig.peer(server)
    resolver = Resolver(monkeypatch, "127.0.0.1")
    with ThreadPoolExecutor(1) as threads:
        try:
            looking = threads.submit(LOOK_UPS[name], rig, server.address[1], Recorder())
            resolver.wait(looking.done)
            peer.sock.settimeout(DEADLINE / 2)
            for _ in range(3):
                peer.send(PING)
                with failing(TimeoutError, f"a look-up by {name} holds up the loop"):
                    assert peer.receive(len(PING)) == PING
        finally:
            resolver.answers.set()
        looking.result(DEADLINE)


def test_connect_timeout_counts_the_look_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    server = rig.serve(Recorder())
    resolver = Resolver(monkeypatch, "127.0.0.1")
    with ThreadPoolExecutor(1) as threads:
        try:
            config, handler = Config(connect_timeout=0.2), Recorder()
            looking = threads.submit(rig.driver.connect, NAME, server.address[1], handler, config=config)
            resolver.wait(looking.done)
            with pytest.raises(TimeoutError, match=r"connect_timeout=0\.2"):
                looking.result(DEADLINE / 2)
        finally:
            resolver.answers.set()
    expect_nobody(rig, server, "a dial survived its time limit")
    assert not handler.calls()


@pytest.mark.usefixtures("needs_reconnect")
def test_a_client_that_is_closed_while_it_looks_up_a_name_never_comes(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = rig.serve(Recorder())
    resolver = Resolver(monkeypatch, "127.0.0.1")
    handler = Recorder()
    client = rig.client((NAME, server.address[1]), handler, Backoff(initial=0.01, maximum=0.01))
    try:
        resolver.wait(lambda: bool(rig.call(lambda: client.stats.closed)))
        rig.call(client.close)
    finally:
        resolver.answers.set()
    expect_nobody(rig, server, "a dial survived the close of its client")
    assert not handler.calls()


def expect_nobody(rig: Rig, server: ServerBase, otherwise: str) -> None:
    """See that nobody connects to a server, whose name was looked up until now."""
    time.sleep(0.2)
    assert rig.call(lambda: server.stats.opened) == 0, otherwise


@contextmanager
def failing(expected: type[Exception], otherwise: str) -> Iterator[None]:
    """Fail with a sentence instead of with an exception."""
    try:
        yield
    except expected as error:
        raise AssertionError(otherwise) from error


@are_listed
def test_a_connection_that_cannot_be_made_leaves_no_descriptor(
    rig: Rig, driver: Driver, certificates: Certificates
) -> None:
    brief = Config(connect_timeout=0.05)
    has_tls = "tls" in driver.capabilities()
    hasty = rig.serve(Recorder(connected=lambda session: session.close())).address[1]
    with (
        socket.socket() as unused,
        socket.create_server(("127.0.0.1", 0)) as silent,
        socket.create_server(("127.0.0.1", 0), backlog=0) as deaf,
        ExitStack() as clogs,
    ):
        unused.bind(("127.0.0.1", 0))
        for _ in range(4):  # fill the accept queue, so that the next one hangs
            clog = clogs.enter_context(socket.socket())
            clog.setblocking(False)
            clog.connect_ex(deaf.getsockname())

        def fail() -> None:
            with pytest.raises(ConnectionRefusedError):
                driver.connect("127.0.0.1", unused.getsockname()[1], Recorder())
            with pytest.raises(TimeoutError):
                driver.connect("127.0.0.1", deaf.getsockname()[1], Recorder(), config=brief)
            if has_tls:
                with pytest.raises(TimeoutError):
                    driver.connect(
                        "127.0.0.1", silent.getsockname()[1], Recorder(), config=brief, tls=certificates.client
                    )
                with pytest.raises(OSError):  # noqa: PT011  the system's own words, or those of TLS
                    driver.connect("127.0.0.1", hasty, Recorder(), tls=certificates.client)

        for _ in range(3):  # what is opened once and kept
            fail()
        before = open_descriptors()
        for _ in range(10):
            fail()
        expect_at_most(before + 3, "of 40 connections that were not made something is left")


@pytest.mark.usefixtures("needs_reconnect")
def test_a_client_that_is_closed_while_it_dials_leaves_nothing(
    rig: Rig, driver: Driver, certificates: Certificates
) -> None:
    if "tls" not in driver.capabilities():
        pytest.skip("the adapter says that it has no TLS")
    handler = Recorder()
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        deaf.settimeout(DEADLINE)
        host, port = deaf.getsockname()
        connect: Any = driver.connect
        patient = Config(connect_timeout=6 * DEADLINE)  # so that nothing but the close ends the dial
        again = Backoff(initial=0.01, maximum=0.01)
        client = connect(host, port, handler, reconnect=again, config=patient, tls=certificates.client)
        accepted, _ = deaf.accept()
        with accepted:
            accepted.settimeout(DEADLINE)
            assert accepted.recv(1), "the client says nothing"  # it waits for the answer to its hello
            rig.call(client.close)
            try:
                while accepted.recv(65536):
                    pass
            except ConnectionError:
                pass
            except TimeoutError:
                pytest.fail("a dial survived the close of its client")
            deaf.settimeout(0.2)
            with pytest.raises(TimeoutError):
                deaf.accept()
    assert not handler.calls("connected")
