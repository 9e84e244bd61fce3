"""What the command line says of TLS, the files found to be good before anything begins."""

from __future__ import annotations

import argparse
from pathlib import Path

from packetcore import TLS
from packetcore_cli._failure import Failure, reason_of
from packetcore_cli._usage import need

TLS_OPTIONS = ("--tls-cert", "--tls-key", "--tls-sni", "--tls-client-ca", "--tls-crl")
"""All that say how a server is to speak TLS."""


def server_tls(args: argparse.Namespace) -> TLS | None:
    """What a server's options say; `None` for no TLS.

    Raises:
        Failure: a file is not good; the message names it.
        WrongUsage: an option is there without the one that it needs.
    """
    need(args, "--tls-cert", "--tls-key", "--tls-sni", "--tls-client-ca")
    need(args, "--tls-client-ca", "--tls-crl")
    if args.tls_cert is None:
        return None
    names = {host: (certificate, key) for host, certificate, key in args.tls_sni or ()}
    tls = TLS(certificate=args.tls_cert, key=args.tls_key, authority=args.tls_client_ca, crl=args.tls_crl, names=names)
    return _checked(tls, server_side=True)


def client_tls(args: argparse.Namespace) -> TLS | None:
    """What `--tls` and `--tls-ca` say; `None` for no TLS.

    Raises:
        Failure: the file is not good.
    """
    return _checked(TLS(authority=args.tls_ca), server_side=False) if args.tls or args.tls_ca else None


def _checked(tls: TLS, *, server_side: bool) -> TLS:
    """The same, once each of its files was found and holds what it should."""
    pairs = ((tls.certificate, tls.key), *tls.names.values())
    parts = [TLS(certificate=certificate, key=key) for certificate, key in pairs]
    parts += [TLS(authority=tls.authority), TLS(authority=tls.authority, crl=tls.crl)]
    for part in parts:  # each by itself, so that what is wrong is told of its own files
        _check(part, server_side=server_side)
    try:
        tls.check(server_side=server_side)
    except ValueError as error:
        raise Failure(str(error)) from None
    return tls


def _check(tls: TLS, *, server_side: bool) -> None:
    paths = [path for path in (tls.certificate, tls.key, tls.crl or tls.authority) if path is not None]
    for path in paths:  # TLS does not say which of them is missing
        try:
            Path(path).read_bytes()
        except (OSError, ValueError) as error:
            raise Failure(f"cannot read {path!r}: {reason_of(error)}") from None
    try:
        tls.context(server_side=server_side)
    except OSError as error:
        raise Failure(f"cannot use {' and '.join(map(repr, paths))} for TLS: {reason_of(error)}") from None
