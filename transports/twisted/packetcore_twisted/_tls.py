"""What only TLS needs, and with it pyOpenSSL and cryptography: the extra `tls`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates, load_pem_x509_crl
from cryptography.x509.oid import NameOID
from OpenSSL.crypto import X509, X509StoreFlags
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

    wrappedProtocol: Any  # noqa: N815
    writes_at_once = True
    """What `write` is given the socket beneath has been given when it returns; of Twisted's own not."""
    at_end = False
    """Whether the peer has said that it has finished sending."""

    def peer_finished(self) -> None:
        """The peer has said so."""
        if not self.at_end:
            self.at_end = True
            self.wrappedProtocol.readConnectionLost()

    def readConnectionLost(self) -> None:  # noqa: N802
        if not self.at_end:
            self.wrappedProtocol.readConnectionLost()

    def writeConnectionLost(self) -> None:  # noqa: N802
        """Our own half-close is done: nothing."""


@implementer(IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator)
class TLSFactory(TLSMemoryBIOFactory):
    """Puts TLS beneath the protocols of another factory."""

    protocol = TLSTransport
    noisy = False

    def __init__(self, options: Any, is_client: bool, factory: Any, reactor: Any) -> None:
        self.options = options
        """What `serve` or `connect` was given, or another in its place, for those who come then."""
        itself: Any = self
        super().__init__(itself, is_client, factory, reactor)

    def clientConnectionForTLS(self, transport: TLSTransport) -> _HalfCloseable:  # noqa: N802
        return self._create("clientConnectionForTLS", transport)

    def serverConnectionForTLS(self, transport: TLSTransport) -> _HalfCloseable:  # noqa: N802
        return self._create("serverConnectionForTLS", transport)

    def _create(self, method: str, transport: TLSTransport) -> _HalfCloseable:
        create = getattr(self.options, method, None)
        # Without, it is a context factory, as older programs have it.
        connection = Connection(self.options.getContext(), None) if create is None else create(transport)
        return _HalfCloseable(connection, transport)


class _HalfCloseable:
    """An OpenSSL connection that tells the end of what the peer sends apart from the end of all."""

    def __init__(self, connection: Connection, transport: TLSTransport) -> None:
        self._connection = connection
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    # The next three are only quicker than `__getattr__`.

    def bio_write(self, data: bytes) -> int:
        return self._connection.bio_write(data)

    def bio_read(self, size: int) -> bytes:
        return self._connection.bio_read(size)

    def send(self, data: bytes) -> int:
        return self._connection.send(data)

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
    oid: name[0].lower() + name.title().replace("_", "")[1:] for name, oid in vars(NameOID).items() if name.isupper()
}
"""As OpenSSL has them, "commonName" for one, which is how the standard library gives a subject."""


def check(options: Any) -> None:
    """See that a server can speak TLS by these options.

    Raises:
        TypeError: they are for clients, or none.
    """
    if not any(hasattr(options, method) for method in ("serverConnectionForTLS", "getContext")):
        raise TypeError(f"CertificateOptions or the like are needed for the TLS of a server, not {options!r}")


def _revoke(store: Any, lists: bytes) -> None:
    blocks = re.findall(rb"-----BEGIN X509 CRL-----[^-]*-----END X509 CRL-----", lists)
    if not blocks:
        raise ValueError("there is no list of revoked certificates")
    for block in blocks:
        store.add_crl(load_pem_x509_crl(block))
    store.set_flags(X509StoreFlags.CRL_CHECK)


def options_from_files(tls: TLS, *, server_side: bool) -> Any:
    """What `serve` or `connect` takes as `ssl`.

    Raises:
        OSError: a file is missing, or holds no certificate, key or list.
        ValueError: see `TLS.check`.
    """
    tls.check(server_side=server_side)
    own: dict[str, Any] = {}
    shared: dict[str, Any] = {"acceptableProtocols": [name.encode() for name in tls.alpn] or None}
    untyped: Any = ssl
    try:
        if tls.certificate is not None:
            leaf, *chain = load_pem_x509_certificates(Path(tls.certificate).read_bytes())
            key = load_pem_private_key(Path(tls.key or tls.certificate).read_bytes(), None)
            own = {"certificate": leaf, "extraCertChain": chain, "privateKey": key}
        if tls.authority is not None:
            roots = load_pem_x509_certificates(Path(tls.authority).read_bytes())
            trusted = [untyped.Certificate(X509.from_cryptography(root)) for root in roots]
            shared["trustRoot"] = untyped.trustRootFromCertificates(trusted)
        options = ssl.CertificateOptions(**own, **shared)
        context = options.getContext()  # finds out now whether the files fit together
        if tls.crl is not None:
            _revoke(context.get_cert_store(), Path(tls.crl).read_bytes())
    except (TypeError, ValueError, Error) as error:  # TypeError: the key needs a password
        raise OSError(f"no certificate, key or list in the files of {tls}: {error}") from None
    if server_side:
        if tls.names:
            others = {
                name: options_from_files(other, server_side=True).getContext() for name, other in tls.by_name().items()
            }

            def by_server_name(connection: Connection) -> None:
                name = connection.get_servername()
                other = TLS.choose(others, None if name is None else name.decode("ascii", "replace"))
                if other is not None:
                    connection.set_context(other)

            context.set_tlsext_servername_callback(by_server_name)
        return options
    return lambda host: ssl.optionsForClientTLS(tls.server_name or host, extraCertificateOptions=own, **shared)
