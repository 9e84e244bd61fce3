"""What only TLS needs, and with it pyOpenSSL and cryptography: the extra `tls`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates
from OpenSSL.crypto import X509
from OpenSSL.SSL import Error
from twisted.internet import ssl
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol

from packetcore import TLS


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
