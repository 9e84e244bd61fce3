"""What carries a conversation: addresses, and what TLS agreed on. Plain values, the same on
every adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Address = tuple[Any, ...]
"""A socket address: `(host, port)` for IPv4, `(host, port, flow, scope)` for IPv6."""


@dataclass(frozen=True, slots=True)
class TLSInfo:
    """What a TLS handshake came to."""

    version: str
    """The protocol, such as "TLSv1.3"."""

    cipher: str
    """The cipher suite by OpenSSL's name, such as "TLS_AES_256_GCM_SHA384"."""

    alpn: str | None = None
    """The application protocol agreed on (RFC 7301); `None` if none was."""

    certificate: bytes | None = None
    """The peer's certificate, DER; `None` if it showed none. It was verified where the
    context, or what a runtime has in its place, demands that, and not otherwise."""

    subject: tuple[tuple[str, str], ...] = ()
    """Whom that certificate names: attributes by their long names in OpenSSL and their values,
    in its order, such as `("commonName", "meter 7")`. Empty unless it was verified."""

    @property
    def common_name(self) -> str | None:
        """The subject's first common name; `None` if it has none."""
        return next((value for name, value in self.subject if name == "commonName"), None)


@dataclass(frozen=True, slots=True)
class Carrier:
    """What carries one session."""

    kind: str
    """"tcp" or "udp"."""

    local: Address | None = None
    """This side's address; `None` where the socket had gone before anybody asked."""

    family: int | None = None
    """The address family, one of `socket.AF_INET` and its kin; `None` as `local`."""

    tls: TLSInfo | None = None
    """What TLS agreed on; `None` without TLS."""
