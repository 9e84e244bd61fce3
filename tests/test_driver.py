"""`Driver`: what it opens it ends, and what it lacks it names. A made-up runtime calls things at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from ssl import CERT_NONE, CERT_REQUIRED, VERIFY_CRL_CHECK_LEAF
from typing import Any

import pytest

from packetcore import TLS, CloseReason, Config, Driver, Endpoint, Handler, Session, installed_transports, load_driver
from packetcore_conformance.certificates import Certificates
from tests.made_up_host import Recorder, open_on
from tests.test_client import Client


class Closable:
    """A server, or a pool."""

    def __init__(self) -> None:
        self.closed: list[tuple[object, ...]] = []

    def close(self, *grace: float) -> None:
        self.closed.append(grace)


class Bare(Driver):
    """The driver of an adapter that has `serve` and `connect` alone."""

    def __init__(self, **more: Any) -> None:
        super().__init__(self.serve, self.connect_now, print, **more)
        self.endpoint = Endpoint(Recorder())

    def call(self, function: Callable[..., Any], *args: Any, timeout: float | None = 30.0) -> Any:
        return function(*args)

    def stop(self) -> None:
        self.close_all()

    def serve(self, handler: Any, host: str, port: int, *, config: None) -> Closable:
        return Closable()

    def connect_now(self, host: str, port: int, handler: Handler | None, *, config: None) -> Session | Client:
        return Client(Recorder()) if port == 0 else open_on(self.endpoint, (host, port))[0]


class Full(Bare):
    """The driver of one that has all, and notes what each was called with."""

    def __init__(self, **more: Any) -> None:
        self.asked: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        names = ["serve_udp", "connect_udp", "new_pool", "serve_unix", "connect_unix", "connect_serial"]
        super().__init__(**{name: partial(self.note, name) for name in names}, **more)

    def note(self, name: str, *args: Any, **options: Any) -> Any:
        self.asked.append((name, args, options))
        return Closable() if name in ("serve_udp", "serve_unix", "new_pool") else Client(Recorder())

    def serve(
        self,
        handler: Any,
        host: str,
        port: int,
        *,
        config: Any,
        ssl: Any = None,
        socket: Any = None,
        framing: Any = None,
        proxy_protocol: Any = None,
        websocket: Any = None,
        reconnect: Any = None,
    ) -> Closable:
        return self.note("serve", handler, host, port, config=config, ssl=ssl, framing=framing)  # type: ignore[no-any-return]

    def connect_now(self, host: str, port: int, handler: Any, *, reconnect: Any = None, **options: Any) -> Any:
        return self.note("connect", host, port, handler, reconnect=reconnect, **options)


def test_what_an_adapter_lacks_is_named() -> None:
    bare = Bare()
    assert bare.capabilities() == {"tcp"}
    asked: list[tuple[Callable[[], object], str]] = [
        (bare.start_udp_server, "UDP"),
        (lambda: bare.connect_udp("192.0.2.1", 1), "UDP"),
        (lambda: bare.start_unix_server(None, "/run/x"), "Unix sockets"),
        (lambda: bare.connect_unix("/run/x"), "Unix sockets"),
        (lambda: bare.connect_serial("/dev/x"), "serial lines"),
        (lambda: bare.open_pool("192.0.2.1", 1), "connection pool"),
    ]
    for ask, what in asked:
        with pytest.raises(OSError, match=f"^Bare has no {what}$"):
            ask()


def test_what_is_asked_of_a_driver_is_asked_of_the_adapter() -> None:
    full, handler, config = Full(), Recorder(), Config()
    full.start_server(handler, "a", 1, config=config, framing=7)
    full.start_server()
    full.connect("b", 2, handler, config=config, reconnect=8)
    full.start_udp_server(handler, "c", 3, config=config, broadcast=True)
    full.start_udp_server()
    full.connect_udp("d", 4, handler, config=config, broadcast=True)
    full.start_unix_server(handler, "e", config=config, mode=0o600)
    full.connect_unix("f", handler, config=config, reconnect=9)
    full.connect_serial("g", handler, config=config, baudrate=1)
    full.open_pool("h", 5, config=config, max_size=2)
    assert full.asked == [
        ("serve", (handler, "a", 1), {"config": config, "ssl": None, "framing": 7}),
        ("serve", (print, "127.0.0.1", 0), {"config": None, "ssl": None, "framing": None}),
        ("connect", ("b", 2, handler), {"config": config, "reconnect": 8}),
        ("serve_udp", (handler, "c", 3), {"config": config, "broadcast": True}),
        ("serve_udp", (print, "127.0.0.1", 0), {"config": None}),
        ("connect_udp", ("d", 4, handler), {"config": config, "broadcast": True}),
        ("serve_unix", (handler, "e"), {"config": config, "mode": 0o600}),
        ("connect_unix", ("f", handler), {"config": config, "reconnect": 9}),
        ("connect_serial", ("g", handler), {"config": config, "baudrate": 1}),
        ("new_pool", ("h", 5), {"config": config, "max_size": 2}),
    ]


def test_what_an_adapter_can_do_is_what_its_functions_take() -> None:
    assert Full().capabilities() == {
        *("tcp", "tls", "udp", "unix", "serial", "reconnect", "pool", "framing", "inherited", "proxy", "websocket")
    }
    for half in ("serve_udp", "connect_udp", "serve_unix", "connect_unix"):
        assert Bare(**{half: print}).capabilities() == {"tcp"}


def test_all_that_was_opened_is_ended() -> None:
    pool = Closable()
    bare = Bare(new_pool=lambda host, port: pool)
    server: Any = bare.start_server()
    assert bare.open_pool("192.0.2.1", 1) is pool
    session = bare.connect("192.0.2.1", 1, Recorder())
    connected, waiting = (bare.connect("192.0.2.1", 0, Recorder()) for _ in range(2))
    host = connected.connect()
    bare.stop()
    bare.stop()
    assert (server.closed, pool.closed) == ([(0,)], [()])
    for ended in (session, host.session):
        assert ended.close_reason is CloseReason.LOCAL
    assert connected.is_closed
    assert waiting.is_closed
    host.session.flush(101)
    assert "abort" in host.verbs


@pytest.mark.parametrize(
    ("tls", "server_side", "words"),
    [
        (TLS(crl="list.pem", authority="ca.pem"), False, "crl and names are for servers"),
        (TLS(names={"a": ("a.pem", None)}), False, "crl and names are for servers"),
        (TLS(crl="list.pem"), True, "crl='list.pem' needs the authority whose list it is"),
        (TLS(names={"a": ("a.pem", None)}), True, "names need a certificate for clients that ask for no name"),
        (TLS(certificate="c.pem", names={"": ("a.pem", None)}), True, "names: '' is no host name; .*"),
        (TLS(certificate="c.pem", names={"ä": ("a.pem", None)}), True, "names: 'ä' is no host name; .*"),
    ],
)
def test_tls_that_does_not_fit_together_is_refused(tls: TLS, server_side: bool, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}$"):
        tls.check(server_side=server_side)


def test_a_certificate_and_its_key_may_stand_in_files_of_their_own(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    both = Path(certificates.server.certificate or "").read_text()
    begin = both.index("-----BEGIN CERTIFICATE")
    for name, pem in ("key", both[:begin]), ("certificate", both[begin:]):
        (tmp_path / name).write_text(pem)
    tls = TLS(certificate=str(tmp_path / "certificate"), key=str(tmp_path / "key"))
    assert tls.context(server_side=True).get_ciphers()
    named = replace(tls, names={"Other.Example": ("other.pem", "other.key")})
    assert named.by_name() == {"other.example": TLS(certificate="other.pem", key="other.key")}


def test_a_list_of_revoked_certificates_changes_nothing_else_that_is_verified(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    plain, listed = certificates.strict_server, replace(certificates.strict_server, crl=certificates.crl)
    flags = plain.context(server_side=True).verify_flags
    assert listed.context(server_side=True).verify_flags == flags | VERIFY_CRL_CHECK_LEAF
    with pytest.raises(OSError, match=r"authority\.pem' holds something else"):
        replace(plain, crl=plain.authority).context(server_side=True)


def test_tls_goes_to_the_adapter_in_its_own_form_and_to_websocket_as_a_context() -> None:
    class Own(Full):
        def tls_options(self, tls: TLS, *, server_side: bool) -> dict[str, Any]:
            return {"ssl": (tls.server_name, server_side)}

    own, tls = Own(request=print), TLS(server_name="n")
    assert own.request is print
    own.start_server(None, "a", 1, tls=tls, framing=7)
    own.connect("b", 2, tls=tls, reconnect=8)
    assert [options.get("ssl") for _, _, options in own.asked] == [("n", True), ("n", False)]
    assert own.asked[0][2]["framing"] == 7
    assert own.asked[1][2]["reconnect"] == 8
    own.start_server(None, "a", 1, tls=tls, websocket=True)
    own.connect("wss://b", None, tls=tls, reconnect=9)
    contexts = [options["ssl"] for _, _, options in own.asked[2:]]
    assert [context.verify_mode for context in contexts] == [CERT_NONE, CERT_REQUIRED]
    assert own.asked[3][2]["server_hostname"] == "n"


def test_what_takes_too_long_is_called_off_and_what_failed_with_a_timeout_is_not() -> None:
    bare, never, failed = Bare(), Future[None](), Future[None]()
    with pytest.raises(TimeoutError, match=r"^not done after 0.01 s$"):
        bare.result(never, 0.01)
    assert never.cancelled()
    failed.set_exception(TimeoutError("its own"))
    with pytest.raises(TimeoutError, match=r"^its own$"):
        bare.result(failed, 1.0)


def test_an_adapter_that_is_not_installed_is_named_beside_those_that_are() -> None:
    installed = [*installed_transports()]
    assert installed == sorted(installed)
    with pytest.raises(LookupError, match=rf"^unknown transport 'none such'; installed: {', '.join(installed)}$"):
        load_driver("none such")
