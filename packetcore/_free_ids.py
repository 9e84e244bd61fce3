"""Which ids of packets are free, and which of those comes next."""

from __future__ import annotations

from packetcore._packet import MAX_ID

_BITS = 256
_ALL = (1 << _BITS) - 1
_BLOCKS = (MAX_ID + 1) // _BITS
_EVERY_BLOCK = (1 << _BLOCKS) - 1


class FreeIds:
    """Goes round all ids and skips those that are taken, so that none comes again soon.

    Each call takes the same few steps, however many are taken: an id is a bit in one of 256
    blocks of 256 bits, and one more number says which blocks are full. A block takes memory
    only while one of its ids is taken.
    """

    __slots__ = ("_blocks", "_full", "_next")

    def __init__(self) -> None:
        self._blocks: dict[int, int] = {}
        self._full = 0
        self._next = 0

    def take(self, id: int) -> None:
        """An id is free no more."""
        block, bit = divmod(id, _BITS)
        taken = self._blocks.get(block, 0) | 1 << bit
        self._blocks[block] = taken
        if taken == _ALL:
            self._full |= 1 << block

    def give_back(self, id: int) -> None:
        """An id is free again."""
        block, bit = divmod(id, _BITS)
        taken = self._blocks.get(block, 0) & ~(1 << bit)
        self._full &= ~(1 << block)
        if taken:
            self._blocks[block] = taken
        else:
            self._blocks.pop(block, None)

    def pick(self) -> int | None:
        """The next id that is free, which it stays until `take`; `None` if there is none."""
        block, bit = divmod(self._next, _BITS)
        ahead = (_ALL ^ self._blocks.get(block, 0)) >> bit << bit
        if not ahead:
            roomy = _EVERY_BLOCK ^ self._full
            if not roomy:
                return None
            block = _lowest(roomy >> block + 1 << block + 1 or roomy)
            ahead = _ALL ^ self._blocks.get(block, 0)
        id = block * _BITS + _lowest(ahead)
        self._next = (id + 1) & MAX_ID
        return id


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1
