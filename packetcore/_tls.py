"""TLS as files and names, for tools that do not know a runtime's own objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import ssl

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """TLS as files and names, for tools that do not know a runtime's own objects.

    A server needs a certificate and its key. A client without an authority trusts whom
    the system trusts; its peer is always verified.
    """

    certificate: str | None = None
    """Path of a PEM file: this side's certificate chain."""

    key: str | None = None
    """Path of a PEM file: its private key."""

    authority: str | None = None
    """Path of a PEM file: whom to trust. A server that has one asks for a client
    certificate."""

    server_name: str | None = None
    """The name that a client expects in the server's certificate, where it is not the
    host that it connects to."""

    alpn: tuple[str, ...] = ()
    """Application protocols to offer, the most wanted first."""

    crl: str | None = None
    """Path of a PEM file: the certificates that the `authority` of a server has revoked (RFC 5280,
    section 5). Clients with one of them are refused, and all clients once the list has expired."""

    names: Mapping[str, tuple[str, str | None]] = field(default_factory=dict, hash=False)
    """Other names of a server, each with its certificate and key, paths as above: for clients that ask for
    that name (SNI, RFC 6066, section 3). "*.example" stands for every name of one label more. Who asks for
    another name, or for none, gets `certificate`."""

    def check(self, *, server_side: bool) -> None:
        """See that the fields fit together.

        Raises:
            ValueError: they do not, as with a list of revoked certificates and nobody who issued them.
        """
        if not server_side and (self.crl is not None or self.names):
            raise ValueError("crl and names are for servers")
        if self.crl is not None and self.authority is None:
            raise ValueError(f"crl={self.crl!r} needs the authority whose list it is")
        if self.names and self.certificate is None:
            raise ValueError("names need a certificate for clients that ask for no name")
        for name in self.names:
            if not name or not name.isascii():
                raise ValueError(f"names: {name!r} is no host name; one that is not ASCII is written as IDNA (xn--)")

    def by_name(self) -> dict[str, TLS]:
        """What is spoken with clients that ask for one of `names`, in lower case."""
        return {
            name.lower(): replace(self, certificate=certificate, key=key, names={})
            for name, (certificate, key) in self.names.items()
        }

    @staticmethod
    def choose(by_name: Mapping[str, T], name: str | None) -> T | None:
        """What stands for the name that a client asks for.

        Args:
            by_name: as `by_name` gives it, with anything in it.
            name: `None` where it asks for none.

        Returns:
            `None` where nothing stands for it.
        """
        labels = (name or "").lower()
        return by_name.get(labels) or by_name.get("*." + labels.partition(".")[2])

    def context(self, *, server_side: bool) -> ssl.SSLContext:
        """As the object that asyncio, gevent and blocking sockets take.

        Raises:
            OSError: a file is missing, or holds no certificate, key or list.
            ValueError: see `check`.
        """
        import ssl

        self.check(server_side=server_side)
        purpose = ssl.Purpose.CLIENT_AUTH if server_side else ssl.Purpose.SERVER_AUTH
        context = ssl.create_default_context(purpose, cafile=self.authority)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        if self.authority is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        if self.crl is not None:
            before = context.cert_store_stats()
            context.load_verify_locations(self.crl)
            after = context.cert_store_stats()
            if after["crl"] == before["crl"] or after["x509"] != before["x509"]:
                raise OSError(f"{self.crl!r} holds something else than lists of revoked certificates")
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        if self.alpn:
            context.set_alpn_protocols(list(self.alpn))
        if self.names:
            others = {name: other.context(server_side=True) for name, other in self.by_name().items()}

            def by_server_name(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
                connection.context = self.choose(others, name) or context

            context.sni_callback = by_server_name
        return context
