"""What stands on a command line, turned into values.

A value of the wrong kind is wrong usage; a number out of its range, wrong hex and a file
that cannot be read are failures of the command.
"""

from __future__ import annotations

import argparse
import ipaddress
import math
import os
import re
import sys
import textwrap
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from packetcore import Packet
from packetcore_cli._failure import Failure, WrongUsage, reason_of

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

LOOPBACK = "127.0.0.1"
"""Where servers are and listen unless asked otherwise: on this machine alone."""

LONGEST_WAIT = 1e9
"""Seconds, some 30 years: more than that and a runtime's timer may overflow."""


class _Help(argparse.HelpFormatter):
    """argparse's, with no option and no name of anything broken at a hyphen."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)


class RawHelp(_Help, argparse.RawDescriptionHelpFormatter):
    """The same, with examples as they are written."""


class Parser(argparse.ArgumentParser):
    """argparse, with errors of one line and no guessing at abbreviations."""

    def __init__(self, **kwargs: Any) -> None:
        defaults: dict[str, Any] = {"allow_abbrev": False, "formatter_class": _Help}
        super().__init__(**defaults | kwargs)

    def actions(self) -> list[argparse.Action]:
        """Its options and positional arguments."""
        return list(self._actions)

    def commands(self) -> dict[str, Parser]:
        """Its commands by name; none, where it is of a command."""
        choices = [action.choices for action in self._actions if action.nargs == argparse.PARSER]
        return dict(*choices)

    def error(self, message: str) -> NoReturn:
        raise WrongUsage(f"{message} (see {self.prog} --help)")


def number(text: str) -> int:
    """An integer: decimal, or with 0x, 0o or 0b in front."""
    try:
        return int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer") from None


def port(text: str) -> int:
    """A port of TCP or UDP."""
    value = number(text)
    if not 0 <= value <= 65535:
        raise Failure(f"port={value} is out of range 0 to 65535")
    return value


def target_port(text: str) -> int:
    """A port where somebody listens. What the system says of 0 is obscure."""
    value = port(text)
    if value == 0:
        raise Failure("port=0 is out of range 1 to 65535")
    return value


def address(text: str) -> tuple[str, int]:
    """PORT of this machine, HOST:PORT or [HOST]:PORT."""
    found = re.fullmatch(r"(?:\[([^\]]+)\]:|([^:\[\]]+):|:)?(\d+)", text)
    if found is None:
        hint = ": an IPv6 address stands in brackets" if text.count(":") > 1 else ""
        raise argparse.ArgumentTypeError(f"{text!r} is none of PORT, HOST:PORT and [HOST]:PORT{hint}")
    bracketed, host, its_port = found.groups()
    return bracketed or host or LOOPBACK, port(its_port)


def host_and_port(text: str) -> tuple[str, int]:
    """Where a server is: HOST:PORT or [HOST]:PORT."""
    if not text.rpartition(":")[0]:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    host, its_port = address(text)
    return host, target_port(str(its_port))


def direction(text: str) -> str:
    """A way through a tap, or both."""
    if text not in ("to-server", "to-client", "both"):
        raise argparse.ArgumentTypeError(f"{text!r} is none of to-server, to-client and both")
    return text.replace("-", "_")


def network(text: str) -> IPNetwork:
    """A network of IPv4 or IPv6, such as 10.0.0.0/8, or one address."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def seconds(name: str) -> Callable[[str], float]:
    """A time to wait, called by its name where it is out of range."""

    def parse(text: str) -> float:
        value = _float(text, "is not a number of seconds")
        if not 0 <= value <= LONGEST_WAIT:
            raise Failure(f"{name}={text} is out of range 0 to {LONGEST_WAIT:.0f} seconds")
        return value

    return parse


def speed(text: str) -> float:
    """How many times as fast; "max" for as fast as can be."""
    if text == "max":
        return math.inf
    value = _float(text, "is neither a number nor max")
    if not 1e-6 <= value <= 1e6:
        raise Failure(f"speed={text} is out of range 0.000001 to 1000000, or max")
    return value


def parse_hex(text: str) -> bytes:
    """Bytes written in hex: white space, `:`, `-` and `,` may stand between bytes and 0x in front.

    Raises:
        ValueError: it is something else; the message says what is wrong with it.
    """
    digits = "".join(re.sub(r"^0[xX]", "", word) for word in re.split(r"[\s:,-]+", text))
    if wrong := re.search(r"[^0-9a-fA-F]", digits):
        raise ValueError(f"{wrong[0]!r} is not a hex digit")
    if len(digits) % 2:
        raise ValueError(f"an odd number of hex digits ({len(digits)})")
    return bytes.fromhex(digits)


def hex_bytes(text: str) -> bytes:
    """The value of an option that must be hex."""
    try:
        return parse_hex(text)
    except ValueError as error:
        raise Failure(f"wrong hex {_shortened(text)}: {error}") from None


def text_bytes(text: str) -> bytes:
    """Text as the bytes that the shell gave."""
    return text.encode("utf-8", "surrogateescape")


def file_bytes(name: str) -> bytes:
    """What a file holds; `-` is standard input."""
    if name == "-":
        if sys.stdin is None:
            raise Failure("standard input is closed")
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except (OSError, ValueError) as error:
        raise Failure(f"cannot read {_shortened(name)}: {reason_of(error)}") from None


def hex_or_path(words: list[str]) -> bytes | str:
    """What `decode` is asked about: bytes where the words are hex, else the path of a file; `-` is standard input.

    Raises:
        Failure: the words are neither.
    """
    if words in ([], ["-"]):
        return "-"
    text = " ".join(words)
    try:
        return parse_hex(text)
    except ValueError as error:
        if not os.path.exists(text):  # pathlib's raises where the name is too long
            raise Failure(f"{_shortened(text)} is neither a file nor hex: {error}") from None
    return text


def add_packet_options(parser: argparse.ArgumentParser, *, or_frame: bool = False) -> None:
    """The options that say what a packet holds, `None` without one; or else what a frame does."""
    text = "0 to 65535; 0x.. is hex" + ("; needed without --framing" if or_frame else "")
    parser.add_argument("--id", type=number, required=not or_frame, metavar="N", help=text)
    parser.add_argument("--type", type=number, metavar="N", help="0 to 255 (default 0)")
    parser.add_argument("--count", type=number, metavar="N", help="packets in its message (default 1)")
    add_payload_options(parser)


def add_payload_options(parser: argparse.ArgumentParser) -> None:
    """The options that say what a payload is, of which there may be one."""
    payload = parser.add_mutually_exclusive_group()
    payload.add_argument("--data", type=text_bytes, metavar="TEXT", help="the payload as text")
    payload.add_argument("--hex", type=hex_bytes, metavar="HEX", help="the payload in hex")
    payload.add_argument("--file", metavar="FILE", help="the payload is what FILE holds; - is standard input")


def payload_of(args: argparse.Namespace) -> bytes:
    """The payload that those options describe."""
    given = (args.data, args.hex, None if args.file is None else file_bytes(args.file))
    return next((value for value in given if value is not None), b"")


def packet_of(args: argparse.Namespace) -> Packet:
    """The packet that those options describe."""
    if args.id is None:
        raise WrongUsage(f"the following arguments are required: --id (see packetcore {args.command} --help)")
    payload = payload_of(args)
    try:
        return Packet(args.id, payload, type=args.type or 0, count=1 if args.count is None else args.count)
    except ValueError as error:
        raise Failure(str(error)) from None


def _float(text: str, wrong: str) -> float:
    with suppress(ValueError):
        value = float(text)
        if not math.isnan(value):
            return value
    raise argparse.ArgumentTypeError(f"{text!r} {wrong}")


def _shortened(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")
