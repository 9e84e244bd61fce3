"""`packetcore serve` over TLS: files that are read again at SIGHUP, clients that are known or revoked,
and several names."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from packetcore import TLS, Packet, encode
from packetcore_conformance.certificates import SERVER_NAME, Certificates, shown_in
from tests.cli_process import DEADLINE, Serving, failing, serving

PING = encode(Packet(1, b"ping"))

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="the system has no SIGHUP")

each_transport = pytest.mark.parametrize("transport", ["asyncio", "blocking", "gevent", "twisted"])


class Device:
    """A client over TLS.

    Args:
        server: whose.
        tls: how it speaks TLS.
    """

    def __init__(self, server: Serving, tls: TLS) -> None:
        address = ("127.0.0.1", int(server.first_line.rpartition(":")[2]))
        sock = socket.create_connection(address, timeout=DEADLINE)
        try:
            self.sock = tls.context(server_side=False).wrap_socket(sock, server_hostname=tls.server_name)
        except BaseException:
            sock.close()
            raise
        self.shown = self.sock.getpeercert(binary_form=True)

    def is_echoed(self) -> bool:
        """Whether a packet comes back; else the server has turned it away."""
        received = b""
        try:
            self.sock.sendall(PING)
            while len(received) < len(PING) and (data := self.sock.recv(64)):
                received += data
        except (ssl.SSLError, ConnectionError):
            return False
        return received == PING

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *exception: object) -> None:
        self.sock.close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def is_served(server: Serving, tls: TLS) -> bool:
    try:
        with Device(server, tls) as device:
            return device.is_echoed()
    except (ssl.SSLError, ConnectionError):
        return False


@each_transport
def test_sighup_has_new_sessions_see_the_new_certificate(
    transport: str, certificates: Certificates, tmp_path: Path
) -> None:
    path = tmp_path / "server.pem"
    shutil.copy(str(certificates.server.certificate), path)
    options = ["--port", "0", "--echo", "--tls-cert", str(path), "--transport", transport]
    with serving(*options) as server:
        with Device(server, certificates.client) as old:
            assert old.is_echoed()
            path.write_text("no certificate")
            server.send_signal(signal.SIGHUP)
            line = server.wait_log("not reloaded")
            assert line.startswith(f"TLS not reloaded, the old certificate stays: cannot use {str(path)!r} for TLS: ")
            with Device(server, certificates.client) as still:
                assert still.is_echoed()
                assert still.shown == old.shown == certificates.shown(certificates.server)
            shutil.copy(str(certificates.renewed_server.certificate), path)
            server.send_signal(signal.SIGHUP)
            assert server.wait_log("TLS reloaded") == f"TLS reloaded: new sessions get what is in {str(path)!r}"
            with Device(server, certificates.client) as new:
                assert new.is_echoed()
                assert new.shown == certificates.shown(certificates.renewed_server)
            assert old.is_echoed(), "the session of before has ended"
        assert server.end() == 0
    assert not [line for line in server.log if "Traceback" in line]


def test_a_file_that_is_gone_or_does_not_fit_is_named_and_the_old_one_stays(
    certificates: Certificates, tmp_path: Path
) -> None:
    path, key, crl = tmp_path / "server.pem", tmp_path / "key.pem", tmp_path / "crl.pem"
    pem = Path(str(certificates.server.certificate)).read_text()
    path.write_text(pem)
    key.write_text(pem)
    crl.write_text(Path(certificates.empty_crl).read_text())
    authority = str(certificates.strict_server.authority)
    options = ["--tls-cert", str(path), "--tls-key", str(key), "--tls-client-ca", authority, "--tls-crl", str(crl)]
    with serving("--port", "0", "--echo", "--log", "logfmt", *options) as server:

        def is_told(says: str, count: int) -> bool:
            server.send_signal(signal.SIGHUP)
            return says in server.wait_log("event=not_reloaded", count)

        key.unlink()
        assert is_told(f"cannot read {str(key)!r}: No such file or directory", 1)
        shutil.copy(str(certificates.renewed_server.certificate), key)
        assert is_told(f"cannot use {str(path)!r} and {str(key)!r} for TLS: key values mismatch", 2)
        key.write_text(pem)
        shutil.copy(authority, crl)
        assert is_told(f"cannot use {str(crl)!r} for TLS: ", 3)
        assert is_served(server, certificates.known_client)
        assert server.end() == 0


@each_transport
def test_clients_are_known_or_revoked_and_a_new_list_is_read_at_sighup(
    transport: str, certificates: Certificates, tmp_path: Path
) -> None:
    crl = tmp_path / "crl.pem"
    shutil.copy(certificates.empty_crl, crl)
    options = ["--tls-cert", str(certificates.server.certificate), "--tls-crl", str(crl)]
    options += ["--tls-client-ca", str(certificates.strict_server.authority), "--transport", transport]
    with serving("--port", "0", "--echo", *options) as server:
        assert not is_served(server, certificates.client)
        assert is_served(server, certificates.known_client)
        assert is_served(server, certificates.lost_client)
        shutil.copy(certificates.crl, crl)
        server.send_signal(signal.SIGHUP)
        server.wait_log("TLS reloaded")
        assert is_served(server, certificates.known_client)
        assert not is_served(server, certificates.lost_client)
        assert server.end() == 0


def test_who_asks_for_a_name_is_shown_its_certificate(certificates: Certificates) -> None:
    named = certificates.named_server("meters.example", "*.pumps.example")
    options = [str(part) for name, (path, _) in named.names.items() for part in ("--tls-sni", name, path, path)]
    with serving("--port", "0", "--echo", "--tls-cert", str(certificates.server.certificate), *options) as server:
        for asked, path in (
            ("meters.example", named.names["meters.example"][0]),
            ("north.pumps.example", named.names["*.pumps.example"][0]),
            (SERVER_NAME, str(certificates.server.certificate)),
        ):
            with Device(server, replace(certificates.client, server_name=asked)) as device:
                assert device.is_echoed()
                assert device.shown == shown_in(path)
        assert server.end() == 0


@pytest.mark.parametrize("options", [(), ("--udp",)], ids=["tcp", "udp"])
def test_a_server_without_tls_has_nothing_to_reload_and_lives_on(options: tuple[str, ...]) -> None:
    with serving("--port", "0", "--echo", *options) as server:
        for count in (1, 2):
            server.send_signal(signal.SIGHUP)
            says = "SIGHUP: nothing to reload, since this server speaks no TLS"
            assert server.wait_log("SIGHUP", count) == says
        assert server.end() == 0


def test_options_need_each_other(certificates: Certificates) -> None:
    path = str(certificates.server.certificate)
    for options, says in (
        (("--tls-key", path), "argument --tls-key: needs argument --tls-cert"),
        (("--tls-client-ca", path), "argument --tls-client-ca: needs argument --tls-cert"),
        (("--tls-sni", "meters.example", path, path), "argument --tls-sni: needs argument --tls-cert"),
        (("--tls-cert", path, "--tls-crl", path), "argument --tls-crl: needs argument --tls-client-ca"),
        (("--udp", "--tls-cert", path), "argument --tls-cert: not allowed with argument --udp"),
    ):
        assert failing(*options) == (2, f"packetcore: {says} (see packetcore serve --help)")
    code, text = failing("--tls-cert", path, "--tls-sni", "", path, path)
    assert (code, text.partition(";")[0]) == (1, "packetcore: names: '' is no host name")
    code, text = failing("--tls-cert", path, "--tls-client-ca", path, "--tls-crl", path)
    assert code == 1
    assert re.match(f"packetcore: cannot use {path!r} for TLS: .* something else than lists", text), text
