"""Certificates that change.

New connections see a new one and old sessions go on; clients are known or revoked; a server has
several names.
"""

from __future__ import annotations

import ssl
from dataclasses import replace
from typing import Any

import pytest

from packetcore import TLS, CloseReason, Driver, LocalProtocolError, Packet, Refusal, ServerBase, encode
from packetcore_conformance.certificates import SERVER_NAME, Certificates, shown_in
from packetcore_conformance.peer import Peer
from packetcore_conformance.recorder import Recorder, echo
from packetcore_conformance.rig import Rig

PING = encode(Packet(1, b"ping"))


@pytest.fixture(autouse=True)
def needs_tls(driver: Driver) -> None:
    if "tls" not in driver.capabilities():
        pytest.skip("the adapter says that it has no TLS")


def reload(rig: Rig, server: ServerBase, tls: TLS) -> None:
    """Give a server another certificate; skip where the adapter's servers take none."""
    try:
        rig.driver.reload_tls(server, tls)
    except NotImplementedError:
        pytest.skip("the adapter's servers do not reload TLS")


def is_echoed(peer: Peer) -> bool:
    peer.send(PING)
    return peer.receive(len(PING)) == PING


def shown_to(peer: Peer) -> bytes:
    """The server's certificate, as a peer sees it."""
    assert isinstance(peer.sock, ssl.SSLSocket)
    shown = peer.sock.getpeercert(binary_form=True)
    assert shown is not None
    return shown


def raw_peer(rig: Rig, server: ServerBase, certificates: Certificates, name: str = SERVER_NAME) -> Peer:
    return rig.peer(server, tls=certificates.raw_context(), server_hostname=name)


def is_served(rig: Rig, server: ServerBase, tls: TLS) -> bool:
    """Whether a client gets an echo; else it is turned away, while or after it connects (TLS 1.3)."""
    client = Recorder(connected=lambda session: session.send(Packet(1)))
    try:
        session = rig.connect(server, client, tls=tls)
    except OSError:
        return False
    rig.until(lambda: bool(client.calls("packet_received") or client.calls("disconnected")), "an answer or an end")
    rig.call(session.abort)
    return bool(client.calls("packet_received"))


def test_new_connections_see_the_new_certificate_and_old_sessions_go_on(rig: Rig, certificates: Certificates) -> None:
    handler = echo()
    server = rig.serve(handler, tls=certificates.server)
    old = raw_peer(rig, server, certificates)
    assert is_echoed(old)
    reload(rig, server, certificates.renewed_server)
    new = raw_peer(rig, server, certificates)
    assert is_echoed(new)
    assert is_echoed(old), "a session that was open ended with the certificate that it began with"
    assert (shown_to(old), shown_to(new)) == (
        certificates.shown(certificates.server),
        certificates.shown(certificates.renewed_server),
    )
    client = rig.connect(server, Recorder(), tls=certificates.client)
    info = rig.call(lambda: client.carrier.tls)
    assert info.certificate == certificates.shown(certificates.renewed_server)
    assert len(handler.calls("disconnected")) == 0


def test_a_handshake_under_way_goes_on_as_it_began(rig: Rig, certificates: Certificates) -> None:
    server = rig.serve(echo(), tls=certificates.server)
    accepted = rig.peer(server)
    first = raw_peer(rig, server, certificates)  # whoever came before has been accepted too
    reload(rig, server, certificates.renewed_server)
    late = Peer(certificates.raw_context().wrap_socket(accepted.sock, server_hostname=SERVER_NAME))
    assert is_echoed(late)
    assert is_echoed(first)
    assert shown_to(late) == certificates.shown(certificates.server)
    late.close()


def test_what_no_server_can_speak_by_is_refused_and_the_old_certificate_stays(
    rig: Rig, certificates: Certificates
) -> None:
    server = rig.serve(echo(), tls=certificates.server)
    of_a_client: Any = rig.driver.tls_options(certificates.client, server_side=False)["ssl"]
    for wrong in (of_a_client, None, "server.pem"):
        with pytest.raises((ssl.SSLError, TypeError)):
            rig.call(server.reload_tls, wrong)
    with pytest.raises(OSError):  # noqa: PT011
        reload(rig, server, TLS(certificate="/nowhere/server.pem"))
    peer = raw_peer(rig, server, certificates)
    assert is_echoed(peer)
    assert shown_to(peer) == certificates.shown(certificates.server)


def test_a_server_without_tls_has_nothing_to_reload(rig: Rig, certificates: Certificates) -> None:
    servers = [rig.serve(echo())]
    if "udp" in rig.driver.capabilities():
        servers.append(rig.serve_udp(echo()))
    for server in servers:
        with pytest.raises(LocalProtocolError, match="speaks no TLS"):
            reload(rig, server, certificates.server)
    assert is_echoed(rig.peer(servers[0]))


def test_a_server_that_is_reloaded_may_want_to_know_its_clients(rig: Rig, certificates: Certificates) -> None:
    server = rig.serve(echo(), tls=certificates.server)
    assert is_served(rig, server, certificates.client)
    reload(rig, server, certificates.strict_server)
    assert not is_served(rig, server, certificates.client)
    assert is_served(rig, server, certificates.known_client)


def test_a_client_whose_certificate_is_revoked_is_refused_from_then_on(rig: Rig, certificates: Certificates) -> None:
    handler = echo()
    strict = certificates.strict_server
    server = rig.serve(handler, tls=replace(strict, crl=certificates.empty_crl))
    assert is_served(rig, server, certificates.lost_client)
    open_before = Recorder()
    session = rig.connect(server, open_before, tls=certificates.lost_client)
    reload(rig, server, replace(strict, crl=certificates.crl))
    assert not is_served(rig, server, certificates.lost_client)
    assert is_served(rig, server, certificates.known_client)
    rig.until(lambda: server.stats.refusals[Refusal.TLS_FAILED] == 1, "the revoked client was counted as refused")
    rig.call(session.send, Packet(2))
    assert open_before.wait("packet_received") == [Packet(2)], "to end open sessions is the application's"
    reload(rig, server, replace(strict, crl=certificates.old_crl))
    assert not is_served(rig, server, certificates.known_client), "a list that has expired says nothing"


def test_a_list_of_revoked_certificates_is_one_and_has_an_authority(rig: Rig, certificates: Certificates) -> None:
    authority = certificates.strict_server.authority
    assert authority is not None
    for wrong in (authority, __file__, "/nowhere/crl.pem"):
        with pytest.raises(OSError):  # noqa: PT011
            rig.serve(echo(), tls=replace(certificates.strict_server, crl=wrong))
    with pytest.raises(ValueError, match="needs the authority"):
        rig.serve(echo(), tls=replace(certificates.server, crl=certificates.crl))
    with pytest.raises(ValueError, match="for servers"):
        rig.driver.connect("127.0.0.1", 1, Recorder(), tls=replace(certificates.client, crl=certificates.crl))


def test_a_server_of_several_names_shows_each_its_certificate(rig: Rig, certificates: Certificates) -> None:
    named = certificates.named_server("meters.example", "*.pumps.example")
    server = rig.serve(echo(), tls=named)
    paths = {name: path for name, (path, _) in named.names.items()}
    for asked, path in (
        ("meters.example", paths["meters.example"]),
        ("METERS.example", paths["meters.example"]),
        ("north.pumps.example", paths["*.pumps.example"]),
        (SERVER_NAME, certificates.server.certificate),
    ):
        peer = raw_peer(rig, server, certificates, asked)
        assert is_echoed(peer)
        assert shown_to(peer) == shown_in(str(path)), f"another certificate is shown to those who ask for {asked}"
    nameless = certificates.raw_context()
    nameless.check_hostname = False
    peer = rig.peer(server, tls=nameless)
    assert is_echoed(peer)
    assert shown_to(peer) == certificates.shown(certificates.server)
    with pytest.raises(ssl.SSLCertVerificationError):
        raw_peer(rig, server, certificates, "a.b.pumps.example")


def test_of_each_name_a_server_wants_to_know_its_clients(rig: Rig, certificates: Certificates) -> None:
    named = certificates.named_server("meters.example")
    strict = replace(named, authority=certificates.strict_server.authority, crl=certificates.crl)
    server = rig.serve(echo(), tls=strict)
    for name in (SERVER_NAME, "meters.example"):
        assert is_served(rig, server, replace(certificates.known_client, server_name=name))
        for client in (certificates.client, certificates.lost_client):
            assert not is_served(rig, server, replace(client, server_name=name))


def test_application_protocols_of_a_new_certificate_are_its_own(rig: Rig, certificates: Certificates) -> None:
    handler = Recorder()
    server = rig.serve(handler, tls=certificates.server)
    reload(rig, server, replace(certificates.renewed_server, alpn=("packets/2",)))
    peer = rig.peer(server, tls=certificates.raw_context(alpn=("packets/2",)), server_hostname=SERVER_NAME)
    handler.wait("connected")
    assert rig.call(lambda: handler.sessions[0].carrier.tls).alpn == "packets/2"
    peer.close()
    assert handler.wait_reasons()[0] in (CloseReason.PEER, CloseReason.RESET)
