"""Messages too long for one packet: cut here, and joined again within bounds.

The pieces of a message bear serial numbers that follow each other, so that each tells that of the
first, by which the message is known. Pieces that come again are sent as they were.
"""

from __future__ import annotations

from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from zlib import crc32

from .bodies import Body, Fragment
from .packet import MAX_BODY, JT808Packet

COST = 128
"""Bytes that a piece takes beside its own: a sender of tiny ones must not have memory for nothing."""

REMEMBERED = 256
"""How many messages that are whole are remembered, so that a piece that comes again begins none."""


def split(
    phone: str, serial: int, body: Body, version: int | None = None, *, size: int = MAX_BODY
) -> list[JT808Packet]:
    """A message as packets: several if its body is longer than `size`.

    Args:
        phone: the terminal's.
        serial: the first packet's; the others have those that follow.

    Raises:
        ValueError: it takes more than 65,535.
    """
    data = body.encode(version)
    if len(data) <= size:
        return [JT808Packet(phone, serial, body, version)]
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    if len(pieces) > 0xFFFF:
        raise ValueError(f"a body of {len(data)} bytes takes {len(pieces)} packets, and 65535 can be counted")
    return [
        JT808Packet(phone, (serial + at) & 0xFFFF, Fragment(body.message_id, len(pieces), at + 1, piece), version)
        for at, piece in enumerate(pieces)
    ]


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A message of which pieces are missing."""

    sender: int
    """Its session's id."""
    message_id: int
    serial: int
    """Of its first piece."""
    missing: tuple[int, ...]
    """Which ones: at most 255, as many as one request may name."""


_Key = tuple[int, int, int]


@dataclass(slots=True)
class _Pending:
    total: int
    begun: float
    changed: float
    pieces: dict[int, bytes] = field(default_factory=dict)
    held: int = 0
    asked: int = 0


class Joiner:
    """Joins the pieces of all senders' messages, in whatever order they come.

    It knows no clock: whoever calls it says what time it is, in seconds, and asks now and then
    for `stalled` and `expire`.

    Args:
        max_pieces: the most pieces that a message may have.
        max_message: the most bytes, with `COST` for each piece.
        max_pending: how many messages of one sender may be unfinished.
        max_held: how many bytes all unfinished ones may take together.
        timeout: after how long, from its first piece, a message is given up.
        resend_after: after how long without another piece the missing ones are asked for.
        resends: how often.
    """

    def __init__(
        self,
        *,
        max_pieces: int = 4096,
        max_message: int = 1 << 20,
        max_pending: int = 4,
        max_held: int = 64 << 20,
        timeout: float = 60.0,
        resend_after: float = 5.0,
        resends: int = 3,
    ) -> None:
        self.max_pieces, self.max_message = max_pieces, max_message
        self.max_pending, self.max_held = max_pending, max_held
        self.timeout, self.resend_after, self.resends = timeout, resend_after, resends
        self.held = 0
        """Bytes that unfinished messages take now."""
        self.duplicates = 0
        """How many pieces had come before."""
        self._pending: OrderedDict[_Key, _Pending] = OrderedDict()  # the first begun first
        self._of: Counter[int] = Counter()
        self._whole: OrderedDict[_Key, array[int]] = OrderedDict()

    def __len__(self) -> int:
        """How many messages are unfinished."""
        return len(self._pending)

    def add(self, sender: int, packet: JT808Packet, now: float) -> bytes | None:
        """Take a packet whose body is a `Fragment`. Gives the message's body if it is whole.

        A piece that contradicts one that came before, in its total or its bytes, begins the message
        anew: its sender has begun to count from 0 again.

        Raises:
            ValueError: a limit is exceeded; the message says which. Its message is given up.
        """
        piece = packet.body
        if not isinstance(piece, Fragment):
            raise TypeError(f"{piece!r} is no Fragment")
        key = (sender, piece.number, (packet.serial - piece.index + 1) & 0xFFFF)
        if self._was_whole(key, piece):
            self.duplicates += 1
            return None
        pending = self._pending.get(key)
        if pending is not None and (
            pending.total != piece.total or pending.pieces.get(piece.index, piece.data) != piece.data
        ):
            self._drop(key)
            pending = None
        if pending is not None and piece.index in pending.pieces:
            self.duplicates += 1
            return None
        self._check(key, piece, pending)
        if pending is None:
            pending = self._pending[key] = _Pending(piece.total, now, now)
            self._of[sender] += 1
        pending.pieces[piece.index] = piece.data
        pending.changed = now
        pending.held += len(piece.data) + COST
        self.held += len(piece.data) + COST
        if len(pending.pieces) < pending.total:
            return None
        self._drop(key)
        pieces = [pending.pieces[index] for index in range(1, pending.total + 1)]
        self._remember(key, pieces)
        return b"".join(pieces)

    def stalled(self, now: float) -> Iterator[Unfinished]:
        """Messages whose missing pieces are to be asked for now."""
        for key, pending in self._pending.items():
            if pending.asked < self.resends and now - pending.changed >= self.resend_after:
                pending.asked += 1
                pending.changed = now
                yield _unfinished(key, pending)

    def expire(self, now: float) -> list[Unfinished]:
        """Give up messages that took too long."""
        over = []
        while self._pending:
            key, pending = next(iter(self._pending.items()))
            if now - pending.begun < self.timeout:
                break
            over.append(_unfinished(key, pending))
            self._drop(key)
        return over

    def forget(self, sender: int) -> int:
        """Give up all messages of a sender who has gone. Returns how many were unfinished."""
        keys = [key for key in self._pending if key[0] == sender] if self._of[sender] else []
        for key in keys:
            self._drop(key)
        return len(keys)

    def _check(self, key: _Key, piece: Fragment, pending: _Pending | None) -> None:
        size = len(piece.data) + COST
        if piece.total > self.max_pieces:
            wrong = f"{piece.total} pieces exceed max_pieces={self.max_pieces}"
        elif pending is None and self._of[key[0]] >= self.max_pending:
            wrong = f"max_pending={self.max_pending} messages of this sender are unfinished already"
        elif (pending.held if pending else 0) + size > self.max_message:
            wrong = f"it exceeds max_message={self.max_message}"
        elif self.held + size > self.max_held:
            wrong = f"unfinished messages take max_held={self.max_held} bytes already"
        else:
            return
        self._drop(key)
        raise ValueError(f"message {piece.number:04X}: {wrong}")

    def _drop(self, key: _Key) -> None:
        pending = self._pending.pop(key, None)
        if pending is not None:
            self.held -= pending.held
            self._of[key[0]] -= 1
        if not self._of[key[0]]:
            del self._of[key[0]]

    def _remember(self, key: _Key, pieces: list[bytes]) -> None:
        self._whole[key] = array("L", map(crc32, pieces))
        while len(self._whole) > REMEMBERED:
            self._whole.popitem(last=False)

    def _was_whole(self, key: _Key, piece: Fragment) -> bool:
        checks = self._whole.get(key)
        if checks is None or key in self._pending:
            return False
        return len(checks) == piece.total and checks[piece.index - 1] == crc32(piece.data)


def _unfinished(key: _Key, pending: _Pending) -> Unfinished:
    missing = [index for index in range(1, pending.total + 1) if index not in pending.pieces]
    return Unfinished(*key, tuple(missing[:255]))
