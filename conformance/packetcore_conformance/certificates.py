"""Certificates for the TLS cases: an authority, a server, a client, and a stranger."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme

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

    def raw_context(self, *, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
        """What a raw peer speaks TLS with."""
        return TLS(authority=str(self._folder / "authority.pem"), alpn=alpn).context(server_side=False)

    def _issue(self, name: str, authority: trustme.CA, *identities: str, common_name: str | None = None) -> str:
        issued = authority.issue_cert(*identities, common_name=common_name)
        return self._write(name, issued.private_key_and_cert_chain_pem.bytes())

    def _write(self, name: str, pem: bytes) -> str:
        path = self._folder / f"{name}.pem"
        path.write_bytes(pem)
        return str(path)
