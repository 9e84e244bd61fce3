"""Byte stuffing with any flag and escape, in Python."""

from __future__ import annotations

from collections.abc import Mapping

from packetcore._reasons import Reason
from packetcore.framings._check import Check
from packetcore.framings._framing import Data, Frames, frame_bytes
from packetcore.framings._runs import RunDecoder


class Stuffing:
    """What a framing of flags and escapes amounts to.

    Args:
        flag: the byte that begins and ends frames.
        escape: the byte in front of each code.
        codes: for each byte that may not be sent, what follows the escape byte for it.
        check: the check at the end of each frame, if there is one.
        xor: what a code is XORed with, where any byte may be escaped; 0 where `codes` are all.
        opens: whether a frame needs a flag in front of it.
    """

    __slots__ = ("check", "escape", "flag", "known", "opens", "pairs")

    def __init__(
        self, flag: int, escape: int, codes: Mapping[int, int], check: Check | None, xor: int = 0, opens: bool = True
    ) -> None:
        self.flag = bytes([flag])
        self.escape = escape
        self.check = check
        self.opens = opens
        # The escape byte comes first: those that are put in later must not be escaped again.
        order = sorted(codes, key=lambda byte: byte != escape)
        self.pairs = [(bytes([byte]), bytes([escape, codes[byte]])) for byte in order]
        self.known = {code: bytes([byte]) for byte, code in codes.items()}
        if xor:
            self.known = {code: bytes([code ^ xor]) for code in range(256) if code != flag}

    def encode(self, frame: Data) -> bytes:
        body = frame_bytes(frame)
        if self.check is not None:
            check = self.check.function(body)
            if len(check) != self.check.size:
                raise ValueError(f"a check of size={self.check.size} gave {len(check)} bytes")
            body += check
        if not body:
            raise ValueError("an empty frame without a check is nothing: two flags with nothing between them")
        for plain, escaped in self.pairs:
            body = body.replace(plain, escaped)
        return self.flag + body + self.flag


class StuffingDecoder(RunDecoder):
    """Runs between flags, with escapes and a check in them."""

    __slots__ = ("_check", "_codes", "_escape", "_escape_byte", "_known", "_replaces", "_size")

    def __init__(self, rules: Stuffing, max_frame: int) -> None:
        self._check = rules.check
        self._size = rules.check.size if rules.check is not None else 0
        self._escape_byte = rules.escape
        self._escape = bytes([rules.escape])
        self._known = rules.known
        # Where a code is the escape byte, only the order in a run tells one from the other.
        self._replaces = not any(escaped[1] == rules.escape for _, escaped in rules.pairs)
        self._codes = rules.pairs[::-1]
        super().__init__(rules.flag, 2 * (max_frame + self._size), max_frame, rules.opens)

    def _take(self, runs: list[bytes], events: Frames) -> None:
        check, size, escape, bound = self._check, self._size, self._escape_byte, self._bound
        longest = self._max_frame + size
        for run in runs:
            plain: bytes | None = run
            if escape in run:
                plain = self._unescape(run) if len(run) <= bound else None
            if plain is None:
                self._refuse(run, Reason.BAD_ESCAPE, events)
            elif len(plain) > longest:
                self._refuse(run, Reason.TOO_LONG, events)
            elif check is None:
                events.append(plain)
            elif len(plain) < size:
                self._refuse(run, Reason.TOO_SHORT, events)
            elif check.agrees(frame := plain[:-size], plain[-size:]):
                events.append(frame)
            else:
                self._refuse(run, Reason.BAD_CHECK, events)

    def _unescape(self, run: bytes) -> bytes | None:
        """The bytes that were escaped into a run, `None` for a bad escape."""
        if self._replaces:
            plain = run
            for byte, escaped in self._codes:
                plain = plain.replace(escaped, byte)
            # Each sound escape became one byte shorter; any other is a bad or a needless one.
            if len(run) - len(plain) == run.count(self._escape_byte):
                return plain
        first, *pieces = run.split(self._escape)
        parts = [first]
        each = iter(pieces)
        try:
            for piece in each:
                if piece:
                    parts += self._known[piece[0]], piece[1:]
                else:  # the code is an escape byte itself, or there is none
                    parts += self._known[self._escape_byte], next(each)
        except (KeyError, StopIteration):
            return None
        return b"".join(parts)
