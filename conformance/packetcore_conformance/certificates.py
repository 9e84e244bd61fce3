"""Certificates for the TLS cases: an authority, a server, a client, and a stranger."""

from __future__ import annotations

import ssl
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import CertificateRevocationListBuilder, RevokedCertificateBuilder, load_pem_x509_certificate

from packetcore import TLS

SERVER_NAME = "gateway.example"


class Certificates:
    """PEM files below one folder, as the `TLS` of a server or a client.

    Args:
        folder: an empty folder to write to.
    """

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self._stranger = trustme.CA()
        self._folder = folder
        authority = self._write("authority", self._authority.cert_pem.bytes())
        stranger = self._write("stranger", self._stranger.cert_pem.bytes())
        server = self._issue("server", self._authority, SERVER_NAME, "127.0.0.1")
        client = self._issue("client", self._authority, "device-7.example", common_name="device 7")
        self.server = TLS(certificate=server, key=server)
        """A server that anyone may speak to."""
        self.strict_server = TLS(certificate=server, key=server, authority=authority)
        """A server that wants to know its clients."""
        self.alpn_server = TLS(certificate=server, key=server, alpn=("packets/2", "packets/1"))
        """A server that speaks two application protocols."""
        self.client = TLS(authority=authority, server_name=SERVER_NAME)
        """A client that knows the authority."""
        self.address_client = TLS(authority=authority)
        """A client that knows the authority, and the server by its address."""
        self.known_client = TLS(authority=authority, server_name=SERVER_NAME, certificate=client, key=client)
        """A client that has a certificate too."""
        self.distrustful_client = TLS(authority=stranger, server_name=SERVER_NAME)
        """A client that trusts somebody else."""
        self.misled_client = TLS(authority=authority, server_name="another.example")
        """A client that expects another server."""
        renewed = self._issue("renewed", self._authority, SERVER_NAME, "127.0.0.1")
        self.renewed_server = TLS(certificate=renewed, key=renewed)
        """The same server with another certificate."""
        lost = self._authority.issue_cert("device-8.example", common_name="device 8")
        lost_path = self._write("lost", lost.private_key_and_cert_chain_pem.bytes())
        self.lost_client = replace(self.known_client, certificate=lost_path, key=lost_path)
        """A client whose certificate may be revoked."""
        self.empty_crl = self._write("nobody", self._crl())
        """The authority's list of revoked certificates, with none in it."""
        self.crl = self._write("revoked", self._crl(lost))
        """Its list with the certificate of `lost_client`."""
        self.old_crl = self._write("outdated", self._crl(days=-1))
        """Its list of the day before."""

    @staticmethod
    def shown(tls: TLS) -> bytes:
        """The certificate that a side shows to its peer, DER."""
        assert tls.certificate is not None
        return shown_in(tls.certificate)

    def raw_context(self, *, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
        """What a raw peer speaks TLS with."""
        return TLS(authority=str(self._folder / "authority.pem"), alpn=alpn).context(server_side=False)

    def _crl(self, *revoked: trustme.LeafCert, days: int = 1) -> bytes:
        """The authority's list of revoked certificates, which is good for so many days."""
        authority = load_pem_x509_certificate(self._authority.cert_pem.bytes())
        now = datetime.now(timezone.utc)
        crl = CertificateRevocationListBuilder(authority.subject, now - timedelta(2), now + timedelta(days))
        for each in revoked:
            serial = load_pem_x509_certificate(each.cert_chain_pems[0].bytes()).serial_number
            crl = crl.add_revoked_certificate(RevokedCertificateBuilder(serial, now - timedelta(2)).build())
        key: Any = load_pem_private_key(self._authority.private_key_pem.bytes(), None)
        return crl.sign(key, SHA256()).public_bytes(Encoding.PEM)

    def named_server(self, *names: str) -> TLS:
        """`server`, with a certificate for each other name. "*.example" stands for every one of one label more."""
        paths = {name: self._issue(name.replace("*", "any"), self._authority, name) for name in names}
        return replace(self.server, names={name: (path, None) for name, path in paths.items()})

    def _issue(self, name: str, authority: trustme.CA, *identities: str, common_name: str | None = None) -> str:
        issued = authority.issue_cert(*identities, common_name=common_name)
        return self._write(name, issued.private_key_and_cert_chain_pem.bytes())

    def _write(self, name: str, pem: bytes) -> str:
        path = self._folder / f"{name}.pem"
        path.write_bytes(pem)
        return str(path)


def shown_in(path: str) -> bytes:
    """The first certificate in a PEM file, DER."""
    return load_pem_x509_certificate(Path(path).read_bytes()).public_bytes(Encoding.DER)
