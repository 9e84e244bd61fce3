"""The runtimes that commands run on, found by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from packetcore import Driver, installed_transports, load_driver
from packetcore_cli._failure import Failure, reason_of
from packetcore_cli._terminal import Cell, Terminal

DEFAULT = "asyncio"
"""The adapter that is always installed: this distribution depends on it."""


@contextmanager
def running_driver(
    name: str,
    *,
    tls: bool = False,
    udp: bool = False,
    serial: bool = False,
    framing: bool = False,
    proxy: bool = False,
    inherited: bool = False,
) -> Iterator[Driver]:
    """Start the runtime of an adapter, and stop it in the end.

    Args:
        name: of the transport.
        tls: whether TLS is needed.
        udp: whether UDP is needed.
        serial: whether serial lines are.
        framing: whether a framing other than the default is needed.
        proxy: whether the PROXY protocol is.
        inherited: whether it is to serve on sockets that others opened.
    """
    try:
        driver = load_driver(name)
    except LookupError as error:
        raise Failure(str(error)) from None
    except Exception as error:  # third parties register adapters too
        raise Failure(f"transport {name!r} does not start: {_in_words(error)}") from None
    try:
        offers = driver.capabilities()
        for word, needed, what in (
            ("udp", udp, "UDP"),
            ("serial", serial, 'serial lines, which need pyserial (the extra "serial")'),
            ("tls", tls, "TLS"),
            ("framing", framing, "framings"),
            ("proxy", proxy, "PROXY protocol"),
            ("inherited", inherited, "way to serve on sockets that others opened"),
        ):
            if needed and word not in offers:
                raise Failure(f"transport {name!r} has no {what}; it has {_listed(offers)}")
        yield driver
    finally:
        driver.stop()


def list_transports(out: Terminal) -> int:
    """`packetcore transports`: what is installed, and what each of them can do."""
    rows: list[list[Cell]] = [[(title, "bold") for title in ("transport", "distribution", "version", "capabilities")]]
    for name, entry in installed_transports().items():
        distribution = ("-", "-") if entry.dist is None else (entry.dist.name, entry.dist.version)
        rows.append([(name, "bold cyan"), *distribution, _capabilities(name)])
    out.table(rows)
    return 0


def _capabilities(name: str) -> Cell:
    try:
        with running_driver(name) as driver:
            return _listed(driver.capabilities())
    except Exception as error:
        return f"error: {_in_words(error)}", "red"


def _listed(words: frozenset[str]) -> str:
    return ", ".join(sorted(words)) or "nothing"


def _in_words(error: Exception) -> str:
    text = str(error) if isinstance(error, Failure) else f"{type(error).__name__}: {reason_of(error)}"
    return " ".join(text.split())
