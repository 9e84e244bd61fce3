"""The sockets that `packetcore serve` inherits: `--fd`, and what systemd hands over."""

from __future__ import annotations

import argparse
import socket
from contextlib import ExitStack

from packetcore_cli._failure import Failure
from packetcore_cli._usage import refuse
from packetcore_sockets import has_inherited_sockets, inherited_sockets, socket_of

MOST = 0x7FFFFFFF
"""The highest descriptor that there can be: it is an int of C."""

_PLACES = ("host", "port", "fd")
"""Options that say where to serve: with one of them what systemd hands over is not asked for."""


def given_sockets(args: argparse.Namespace, opened: ExitStack) -> list[socket.socket]:
    """The sockets to serve on, none where one is to be opened. To be called before anything else opens
    descriptors, which could be taken for those meant.

    Args:
        args: what was asked for.
        opened: closes what no server has closed.

    Raises:
        Failure: a descriptor is not open or no socket, or systemd's variables are not what they should be.
        WrongUsage: `--fd` is given beside an address.
    """
    if args.fd is not None and (args.host is not None or args.port is not None):
        refuse(args, "--fd", "not allowed with arguments --host and --port")
    for descriptor in args.fd or ():
        if not 0 <= descriptor <= MOST:
            raise Failure(f"fd={descriptor} is out of range 0 to {MOST}")
    try:
        if args.fd is not None:
            sockets = [opened.enter_context(socket_of(descriptor)) for descriptor in dict.fromkeys(args.fd)]
        elif has_inherited_sockets() and all(getattr(args, place) is None for place in _PLACES):
            sockets = [opened.enter_context(sock) for sock in inherited_sockets()]
        else:
            sockets = []
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise Failure(f"cannot listen: {text}") from None
    return sockets
