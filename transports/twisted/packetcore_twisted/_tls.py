"""What only TLS needs, and with it pyOpenSSL and cryptography: the extra `tls`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates
from cryptography.x509.oid import NameOID
from OpenSSL.crypto import X509
from OpenSSL.SSL import VERIFY_PEER, Error
from twisted.internet import ssl
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol

from packetcore import TLS, TLSInfo


class TLSTransport(TLSMemoryBIOProtocol):
    """TLS that writes at once: a session has put small writes together already."""

    def connectionLost(self, reason: Any = connectionDone) -> None:  # noqa: N802
        self.tcp_ended = reason.check(ConnectionDone, ConnectionAborted) is not None
        untyped: Any = super()
        untyped.connectionLost(reason)


class TLSFactory(TLSMemoryBIOFactory):
    """Puts TLS beneath the protocols of another factory."""

    protocol = TLSTransport
    noisy = False


def info(transport: Any) -> TLSInfo:
    """What a handshake came to: of a transport that speaks TLS."""
    handle = transport.getHandle()
    shown = transport.getPeerCertificate()
    is_verified = handle.get_context().get_verify_mode() & VERIFY_PEER
    certificate = None if shown is None else shown.to_cryptography()
    subject = certificate.subject if certificate is not None and is_verified else ()
    protocol = transport.negotiatedProtocol
    return TLSInfo(
        version=handle.get_protocol_version_name(),
        cipher=handle.get_cipher_name() or "",
        alpn=None if protocol is None else protocol.decode(),
        certificate=None if certificate is None else certificate.public_bytes(Encoding.DER),
        subject=tuple((_LONG_NAMES.get(one.oid, one.oid.dotted_string), str(one.value)) for one in subject),
    )


_LONG_NAMES = {
    NameOID.COMMON_NAME: "commonName",
    NameOID.COUNTRY_NAME: "countryName",
    NameOID.DOMAIN_COMPONENT: "domainComponent",
    NameOID.DN_QUALIFIER: "dnQualifier",
    NameOID.EMAIL_ADDRESS: "emailAddress",
    NameOID.GIVEN_NAME: "givenName",
    NameOID.LOCALITY_NAME: "localityName",
    NameOID.ORGANIZATION_NAME: "organizationName",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "organizationalUnitName",
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.STATE_OR_PROVINCE_NAME: "stateOrProvinceName",
    NameOID.STREET_ADDRESS: "streetAddress",
    NameOID.SURNAME: "surname",
    NameOID.TITLE: "title",
    NameOID.USER_ID: "userId",
}
"""As OpenSSL has them, which is how the standard library gives a subject."""


def options_from_files(tls: TLS, *, server_side: bool) -> Any:
    """What `serve` or `connect` takes as `ssl`.

    Raises:
        OSError: a file is missing, or holds no certificate or key.
    """
    own: dict[str, Any] = {}
    shared: dict[str, Any] = {"acceptableProtocols": [name.encode() for name in tls.alpn] or None}
    try:
        if tls.certificate is not None:
            leaf, *chain = load_pem_x509_certificates(Path(tls.certificate).read_bytes())
            key = load_pem_private_key(Path(tls.key or tls.certificate).read_bytes(), None)
            own = {"certificate": leaf, "extraCertChain": chain, "privateKey": key}
        if tls.authority is not None:
            found = load_pem_x509_certificates(Path(tls.authority).read_bytes())
            untyped: Any = ssl
            roots = [untyped.Certificate(X509.from_cryptography(root)) for root in found]
            shared["trustRoot"] = untyped.trustRootFromCertificates(roots)
        options = ssl.CertificateOptions(**own, **shared)
        options.getContext()  # finds out now whether the files fit together
    except (TypeError, ValueError, Error) as error:  # TypeError: the key needs a password
        raise OSError(f"no certificate or no key in the files of {tls}: {error}") from None
    if server_side:
        return options
    return lambda host: ssl.optionsForClientTLS(tls.server_name or host, extraCertificateOptions=own, **shared)
