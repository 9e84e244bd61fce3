"""TLS over memory: two sides joined by bytes, however those are cut."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import pytest
import trustme

from packetcore_sockets import TLSRecords
from packetcore_sockets._tls import RECORD

NAME = "server.example"


class Contexts:
    """A server's and a client's."""

    def __init__(self, version: ssl.TLSVersion) -> None:
        self.authority = trustme.CA()
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.authority.issue_cert(NAME).configure_cert(self.server)
        self.authority.configure_trust(self.client)
        self.server.maximum_version = self.client.maximum_version = version

    def pair(self) -> tuple[TLSRecords, TLSRecords]:
        """Both sides, server first, before they have said anything to each other."""
        return TLSRecords(self.server, server_side=True), TLSRecords(self.client, server_hostname=NAME)


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def contexts(request: pytest.FixtureRequest) -> Contexts:
    return Contexts(request.param)


def carry(source: TLSRecords, to: TLSRecords, size: int = 1 << 20) -> bytes:
    """Carry what one side has to write to the other, in pieces; give what that makes of it."""
    records = source.take()
    source.went(len(records))
    return b"".join(to.receive(records[at : at + size]) for at in range(0, len(records), size))


def agree(server: TLSRecords, client: TLSRecords, size: int = 1 << 20) -> None:
    for _ in range(4):
        assert carry(client, server, size) + carry(server, client, size) == b""


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_two_sides_agree_however_their_bytes_are_cut(contexts: Contexts, size: int) -> None:
    server, client = contexts.pair()
    agree(server, client, size)
    assert server.is_open
    assert client.is_open
    client.send(b"hello" * 10_000)
    assert carry(client, server, size) == b"hello" * 10_000
    server.send(b"reply")
    assert carry(server, client, size) == b"reply"


def test_what_comes_with_the_end_of_a_handshake_is_not_lost(contexts: Contexts) -> None:
    server, client = contexts.pair()
    server.shake_hands(client.take())
    client.shake_hands(server.take())
    if not client.is_open:
        server.shake_hands(client.take())
        client.shake_hands(server.take())
    client.send(b"at once")
    server.shake_hands(client.take())
    assert server.is_open
    assert server.receive(b"") == b"at once"


def test_what_has_gone_is_counted_in_the_application_s_bytes_and_exact_in_the_end(contexts: Contexts) -> None:
    server, client = contexts.pair()
    agree(server, client)
    client.send(bytes(100_000))
    client.send(b"x")
    first = client.take()  # of which nothing has gone when the next are made
    client.send(b"yz")
    second = client.take()
    client.close()
    gone = [client.went(1) for _ in first + second + client.take()]
    assert [size for size in gone if size] == [16384] * 6 + [100_000 - 6 * 16384, 1, 2]
    assert gone[len(first) - 1] == 1, "a record has gone with its last byte"
    assert gone[len(first + second) - 1] == 2
    assert gone[-1] == 0  # the close_notify comes last, and is nobody's


def test_one_side_finishes_and_hears_on(contexts: Contexts) -> None:
    server, client = contexts.pair()
    agree(server, client)
    server.close()
    server.close()
    client.send(b"not yet")
    assert carry(server, client) == b""
    client.send(b" at all")
    assert carry(client, server) == b"not yet at all"
    assert (server.at_end, client.at_end) == (False, True)
    client.close()
    assert carry(client, server) == b""
    assert (server.at_end, client.at_end) == (True, True)
    assert (server.error, client.error) == (None, None)


def test_a_peer_that_has_finished_is_answered(contexts: Contexts) -> None:
    server, client = contexts.pair()
    agree(server, client)
    client.close()
    carry(client, server)
    server.send(bytes(50_000))
    assert carry(server, client) == bytes(50_000)


def spoil(records: bytes) -> bytes:
    return records[:-1] + bytes([records[-1] ^ 1])


def test_what_came_before_a_fault_still_counts_and_the_peer_is_told(contexts: Contexts) -> None:
    server, client = contexts.pair()
    agree(server, client)
    client.send(b"good")
    good = client.take()
    client.send(b"bad")
    assert server.receive(good + spoil(client.take())) == b"good"
    fault = server.error
    assert fault is not None
    assert server.receive(good) == b""
    server.send(b"a reply to that")  # which nobody will get
    assert server.error is fault
    carry(server, client)
    assert client.error is not None
    assert "alert" in str(client.error).lower()


def test_a_fault_after_this_side_has_finished_is_nobody_s_loss(contexts: Contexts) -> None:
    server, client = contexts.pair()
    agree(server, client)
    server.close()
    client.send(b"bad")
    bad = spoil(client.take())
    for _ in range(3):
        assert server.receive(bad) == b""
    assert server.error is None
    held = server._incoming.pending
    server.receive(bytes(100_000))
    assert server._incoming.pending == held, "what nobody will read is kept"


def garble(server: TLSRecords, client: TLSRecords) -> TLSRecords:
    server.receive(b"\xfe\x00\x01 no TLS at all, but longer than a header")
    return server


def distrust(server: TLSRecords, client: TLSRecords) -> TLSRecords:
    stranger = TLSRecords(ssl.create_default_context(), server_hostname=NAME)
    agree(server, stranger)
    return stranger


@pytest.mark.parametrize("fail", [garble, distrust])
def test_a_handshake_that_fails_says_so(
    contexts: Contexts, fail: Callable[[TLSRecords, TLSRecords], TLSRecords]
) -> None:
    failed = fail(*contexts.pair())
    assert isinstance(failed.error, ssl.SSLError)
    assert not failed.is_open
    failed.close()
    assert failed.receive(b"more") == b""


def test_a_wrong_name_is_refused(contexts: Contexts) -> None:
    server, client = TLSRecords(contexts.server, server_side=True), TLSRecords(contexts.client, server_hostname="other")
    agree(server, client)
    assert isinstance(client.error, ssl.SSLCertVerificationError)
    with pytest.raises(ValueError, match="server_hostname"):
        TLSRecords(contexts.client)


def test_what_was_agreed_on_is_told(contexts: Contexts) -> None:
    contexts.authority.issue_cert("meter-7.example", common_name="meter 7").configure_cert(contexts.client)
    contexts.authority.configure_trust(contexts.server)
    contexts.server.verify_mode = ssl.CERT_REQUIRED
    contexts.server.set_alpn_protocols(["packets/1"])
    contexts.client.set_alpn_protocols(["packets/2", "packets/1"])
    server, client = contexts.pair()
    agree(server, client)
    info = server.info()
    assert info.common_name == "meter 7"
    assert info.alpn == client.info().alpn == "packets/1"
    assert info.version in ("TLSv1.2", "TLSv1.3")
    assert info.cipher == client.info().cipher != ""
    assert info.certificate is not None
    assert ssl.DER_cert_to_PEM_cert(info.certificate).startswith("-----BEGIN")


class Renewing:
    """Stands for an object of `ssl` whose peer renews the handshake: it cannot write for a while."""

    def __init__(self, tls: ssl.SSLObject) -> None:
        self._tls = tls
        self.is_renewing = True

    def write(self, data: memoryview) -> int:
        if self.is_renewing:
            raise ssl.SSLWantReadError
        return self._tls.write(data)

    def read(self, size: int) -> bytes:
        return self._tls.read(size)


def test_what_cannot_go_while_the_peer_renews_the_handshake_goes_after_it_in_order(
    contexts: Contexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client = contexts.pair()
    agree(server, client)
    renewing = Renewing(client._tls)
    monkeypatch.setattr(client, "_tls", renewing)
    long = bytes(3 * RECORD + 1)
    client.send(long)
    client.send(b"second ")
    client.send(long)
    assert client.take() == b""
    renewing.is_renewing = False
    client.receive(b"")
    client.send(b"third")
    assert carry(client, server) == long + b"second " + long + b"third"


def test_what_cannot_be_sent_for_a_fault_of_tls_is_an_error_and_raises_nothing(
    contexts: Contexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def write(self, data: object) -> int:
            raise fault

    server, client = contexts.pair()
    agree(server, client)
    fault = ssl.SSLError("the handshake was renewed, and failed")
    monkeypatch.setattr(client, "_tls", Broken())
    client.send(b"first")
    client.send(b"second")
    assert client.error is fault
