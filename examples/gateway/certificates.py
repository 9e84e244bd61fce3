"""Who may speak: one authority, whose certificates the gateway and the devices show each other.

A folder has `authority.pem`, `gateway.pem` with its key, and a `devices/NAME.pem` with its key for each device.
`make` fills one to try things with, by trustme. In the field an authority of yours issues them, and each device
has its own alone.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from pathlib import Path

AUTHORITY, GATEWAY, DEVICES = "authority.pem", "gateway.pem", "devices"


def make(folder: Path, devices: Iterable[str]) -> None:
    """Fill a folder that has none.

    Raises:
        ImportError: trustme is not installed.
        OSError: it cannot be written.
    """
    import trustme

    authority = trustme.CA(organization_name="packetcore gateway example")
    for each in (folder, folder / DEVICES):  # the keys in it are nobody else's
        each.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority.cert_pem.write_to_path(str(folder / AUTHORITY))
    gateway = authority.issue_cert("localhost", "127.0.0.1", "::1")
    gateway.private_key_and_cert_chain_pem.write_to_path(str(folder / GATEWAY))
    for name in devices:
        device = authority.issue_cert(f"{name}.devices.example", common_name=name)
        device.private_key_and_cert_chain_pem.write_to_path(str(folder / DEVICES / f"{name}.pem"))


def device_names(folder: Path) -> list[str]:
    """The devices that have a certificate in a folder."""
    return sorted(path.stem for path in (folder / DEVICES).glob("*.pem"))


def gateway_context(folder: Path) -> ssl.SSLContext:
    """TLS for the gateway: who shows no certificate of the authority is refused.

    Raises:
        OSError: a file is missing, or has no certificate.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=_there(folder / AUTHORITY))
    context.load_cert_chain(_there(folder / GATEWAY))
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def device_context(folder: Path, name: str) -> ssl.SSLContext:
    """TLS for a device.

    Raises:
        OSError: a file is missing, or has no certificate.
    """
    context = ssl.create_default_context(cafile=_there(folder / AUTHORITY))
    context.load_cert_chain(_there(folder / DEVICES / f"{name}.pem"))
    return context


def _there(path: Path) -> Path:
    """A path that is one: the error of `ssl` would not name it."""
    with path.open("rb"):
        return path
