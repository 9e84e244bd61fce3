"""Identities as keys of a bucket, and back.

Keys of NATS hold letters, digits and `-/_=.`, and no part between two dots may be empty. So
`"meter 7"` is `s.meter=207`, 42 is `i.42`, and `b"\\x01"` is `b.01`: everything else is written as
`=` and two hexadecimal digits for each of its bytes in UTF-8, and one identity has one key.
"""

from __future__ import annotations

from collections.abc import Hashable
from string import ascii_letters, digits

MAX_KEY = 512
"""Characters: a subject is sent with every message about it, in a line of 4,096 at most."""

WORKER = "w."
"""What keys of workers begin with."""

_PLAIN = frozenset((ascii_letters + digits + "-_/").encode())
_NOTHING = "="


def escaped(text: str) -> str:
    """A text as a part of a key: dots stay where no part between them is empty."""
    plain = _PLAIN | {0x2E} if all(text.split(".")) else _PLAIN
    raw = text.encode("utf-8", "surrogatepass")
    return "".join(chr(byte) if byte in plain else f"={byte:02X}" for byte in raw) or _NOTHING


def key_of(identity: Hashable) -> str:
    """The key of an identity.

    Raises:
        TypeError: it is neither text, a whole number nor bytes, so that other workers could not
            know it for the same.
        ValueError: its key would exceed `MAX_KEY` characters.
    """
    if isinstance(identity, str):
        key = "s." + escaped(identity)
    elif isinstance(identity, int):
        key = f"i.{identity:d}"
    elif isinstance(identity, bytes):
        key = "b." + (identity.hex() or _NOTHING)
    else:
        raise TypeError(f"identity={identity!r} must be str, int or bytes, to be known on other machines")
    if len(key) > MAX_KEY:
        raise ValueError(f"identity of {len(key)} characters as a key exceeds {MAX_KEY}: {str(identity)[:40]}...")
    return key


def identity_of(key: str) -> str | int | bytes:
    """The identity that a key stands for.

    Raises:
        ValueError: it stands for none.
    """
    kind, _, text = key.partition(".")
    if kind == "i":
        return int(text)
    if kind == "b":
        return b"" if text == _NOTHING else bytes.fromhex(text)
    if kind != "s" or not text:
        raise ValueError(f"key {key!r} is of no identity")
    if text == _NOTHING:
        return ""
    head, *rest = text.split("=")
    raw = head.encode() + b"".join(bytes.fromhex(part[:2]) + part[2:].encode() for part in rest)
    return raw.decode("utf-8", "surrogatepass")
