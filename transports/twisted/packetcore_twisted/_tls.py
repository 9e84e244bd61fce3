"""What only TLS needs, and with it pyOpenSSL and cryptography: the extra `tls`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates
from cryptography.x509.oid import NameOID
from OpenSSL.crypto import X509
from OpenSSL.SSL import VERIFY_PEER, Connection, Error, WantReadError, ZeroReturnError
from twisted.internet import ssl
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer  # type: ignore[import-untyped]

from packetcore import TLS, TLSInfo


@implementer(IHalfCloseableProtocol)
class TLSTransport(TLSMemoryBIOProtocol):
    """TLS that writes at once, since a session has put small writes together already; and of which
    each side ends on its own. Twisted's closes once the peer has finished, whatever is unsent."""

    at_end = False
    """Whether the peer has said that it has finished sending."""

    def peer_finished(self) -> None:
        """The peer has said so."""
        if not self.at_end:
            self.at_end = True
            self._tell_end()

    def readConnectionLost(self) -> None:  # noqa: N802
        if not self.at_end:
            self._tell_end()

    def writeConnectionLost(self) -> None:  # noqa: N802
        """Our own half-close is done: nothing."""

    def _tell_end(self) -> None:
        protocol: Any = self.wrappedProtocol
        protocol.readConnectionLost()


class TLSFactory(TLSMemoryBIOFactory):
    """Puts TLS beneath the protocols of another factory."""

    protocol = TLSTransport
    noisy = False

    def __init__(self, options: Any, is_client: bool, factory: Any, reactor: Any) -> None:
        creator: Any = _Creator(options)
        super().__init__(creator, is_client, factory, reactor)


@implementer(IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator)
class _Creator:
    """Makes what Twisted takes for an OpenSSL connection."""

    def __init__(self, options: Any) -> None:
        self._options = options

    def clientConnectionForTLS(self, transport: TLSTransport) -> _HalfCloseable:  # noqa: N802
        return self._create(IOpenSSLClientConnectionCreator, "clientConnectionForTLS", transport)

    def serverConnectionForTLS(self, transport: TLSTransport) -> _HalfCloseable:  # noqa: N802
        return self._create(IOpenSSLServerConnectionCreator, "serverConnectionForTLS", transport)

    def _create(self, interface: Any, method: str, transport: TLSTransport) -> _HalfCloseable:
        if interface.providedBy(self._options):
            connection: Connection = getattr(self._options, method)(transport)
        else:  # a context factory, as older programs have it
            connection = Connection(self._options.getContext(), None)
        return _HalfCloseable(connection, transport)


class _HalfCloseable:
    """An OpenSSL connection that tells the end of what the peer sends apart from the end of all."""

    def __init__(self, connection: Connection, transport: TLSTransport) -> None:
        self._connection = connection
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def recv(self, size: int) -> bytes:
        try:
            return self._connection.recv(size)
        except ZeroReturnError:
            self._transport.peer_finished()
            raise WantReadError from None

    def shutdown(self) -> bool:
        self._connection.shutdown()
        return False  # else Twisted closes the socket, and when to do that the session knows


def info(transport: Any) -> TLSInfo | None:
    """What a handshake came to: of a transport that speaks TLS; `None` if that has gone."""
    handle = transport.getHandle()
    if handle is None:
        return None
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
