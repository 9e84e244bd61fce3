"""Options that make no sense together, or one without another: told in the same words by every command."""

from __future__ import annotations

import argparse
from typing import NoReturn

from packetcore_cli._failure import WrongUsage


def refuse(args: argparse.Namespace, option: str, why: str) -> NoReturn:
    """Say why an option cannot be taken.

    Raises:
        WrongUsage: always.
    """
    raise WrongUsage(f"argument {option}: {why} (see packetcore {args.command} --help)")


def refuse_beside(args: argparse.Namespace, other: str, *options: str, why: str = "") -> None:
    """See that none of some options is given beside another.

    Args:
        args: the command line.
        other: that one.
        options: those that go without it; a command need not have all of them.
        why: what to say of the other.

    Raises:
        WrongUsage: one is.
    """
    if _is_given(args, other):
        for option in filter(lambda option: _is_given(args, option), options):
            refuse(args, option, f"not allowed with argument {other}{why}")


def need(args: argparse.Namespace, needed: str, *options: str) -> None:
    """See that none of some options is given without the one that it needs.

    Raises:
        WrongUsage: one is.
    """
    if not _is_given(args, needed):
        for option in filter(lambda option: _is_given(args, option), options):
            refuse(args, option, f"needs argument {needed}")


def _is_given(args: argparse.Namespace, option: str) -> bool:
    value = getattr(args, option.lstrip("-").replace("-", "_"), None)
    return value is not None and value is not False
