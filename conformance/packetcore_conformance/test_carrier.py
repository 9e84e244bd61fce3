"""The carrier.

What a session may ask about what carries it: addresses, TLS, the peer's certificate.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest

from packetcore import Carrier, Config, Driver, Packet, Session, TLSInfo
from packetcore_conformance.certificates import Certificates
from packetcore_conformance.recorder import Recorder, echo
from packetcore_conformance.rig import Rig


def carrier_of(rig: Rig, session: Session) -> Carrier:
    carrier: Carrier = rig.call(lambda: session.carrier)
    return carrier


def tls_of(rig: Rig, session: Session) -> TLSInfo:
    info = carrier_of(rig, session).tls
    assert info is not None, "a session over TLS says that it has none"
    return info


@pytest.fixture
def needs_tls(driver: Driver) -> None:
    """Skip a case where the adapter has no TLS."""
    if "tls" not in driver.capabilities():
        pytest.skip("the adapter says that it has no TLS")


def test_over_tcp_both_sides_know_their_own_address(rig: Rig) -> None:
    handler = Recorder()
    server = rig.serve(handler)
    client = rig.connect(server, Recorder())
    handler.wait("connected")
    (session,) = handler.sessions
    assert carrier_of(rig, session) == Carrier("tcp", server.address, int(socket.AF_INET))
    assert carrier_of(rig, client) == Carrier("tcp", session.peer, int(socket.AF_INET))


@pytest.mark.usefixtures("needs_udp")
def test_over_udp_the_server_knows_its_own_address(rig: Rig) -> None:
    handler = echo()
    server = rig.serve_udp(handler)
    client = rig.connect_udp(server.address, Recorder())
    rig.call(client.send, Packet(1))
    handler.wait("connected")
    (session,) = handler.sessions
    assert carrier_of(rig, session) == Carrier("udp", server.address, int(socket.AF_INET))
    assert carrier_of(rig, client).local == session.peer


@pytest.mark.usefixtures("needs_tls")
def test_over_tls_both_sides_say_what_was_agreed_on(rig: Rig, certificates: Certificates) -> None:
    handler = Recorder()
    server = rig.serve(handler, tls=certificates.strict_server)
    client = rig.connect(server, Recorder(), tls=certificates.known_client)
    handler.wait("connected")
    (session,) = handler.sessions
    assert certificates.known_client.certificate is not None
    assert certificates.server.certificate is not None
    for asked, shown in (
        (session, certificates.known_client.certificate),
        (client, certificates.server.certificate),
    ):
        info = tls_of(rig, asked)
        assert info.version in ("TLSv1.2", "TLSv1.3")
        assert "_" in info.cipher or "-" in info.cipher
        pem = Path(shown).read_text(encoding="ascii")
        first = pem[pem.index("-----BEGIN CERTIFICATE") :].split("-----END CERTIFICATE-----")[0]
        assert info.certificate == ssl.PEM_cert_to_DER_cert(first + "-----END CERTIFICATE-----\n"), (
            "the certificate is not the one that the peer showed"
        )
    assert tls_of(rig, session).cipher == tls_of(rig, client).cipher
    assert carrier_of(rig, session).local == server.address


@pytest.mark.usefixtures("needs_tls")
def test_a_handler_binds_a_device_s_identity_from_its_certificate(rig: Rig, certificates: Certificates) -> None:
    def bind(session: Session) -> None:
        assert session.carrier.tls is not None
        session.bind(session.carrier.tls.common_name)

    handler = Recorder(connected=bind)
    server = rig.serve(handler, tls=certificates.strict_server)
    rig.connect(server, Recorder(), tls=certificates.known_client)
    handler.wait("connected")
    assert rig.call(server.sessions.find, "device 7") is handler.sessions[0], "the common name is not the certificate's"


@pytest.mark.usefixtures("needs_tls")
def test_a_peer_without_a_certificate_names_nobody(rig: Rig, certificates: Certificates) -> None:
    handler = Recorder()
    rig.connect(rig.serve(handler, tls=certificates.server), Recorder(), tls=certificates.client)
    handler.wait("connected")
    info = tls_of(rig, handler.sessions[0])
    assert (info.certificate, info.subject, info.common_name) == (None, (), None)


@pytest.mark.usefixtures("needs_tls")
def test_the_application_protocol_agreed_on_is_told(rig: Rig, certificates: Certificates) -> None:
    handler = Recorder()
    server = rig.serve(handler, tls=certificates.alpn_server)
    rig.peer(server, tls=certificates.raw_context(alpn=("packets/1",)), server_hostname="gateway.example")
    handler.wait("connected")
    assert tls_of(rig, handler.sessions[0]).alpn == "packets/1"


def test_what_was_asked_before_the_end_is_known_after_it_and_asking_later_harms_nobody(rig: Rig) -> None:
    asking = Recorder(connected=lambda session: session.carrier)
    server = rig.serve(asking, Config(idle_timeout=None))
    rig.peer(server).close()
    asking.wait_reasons()
    assert carrier_of(rig, asking.sessions[0]).local == server.address
    late = Recorder()
    rig.peer(rig.serve(late)).close()
    late.wait_reasons()
    assert carrier_of(rig, late.sessions[0]).kind == "tcp"
