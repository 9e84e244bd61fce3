"""What stands before the IP header in a capture, by the tcpdump group's LINKTYPE numbers."""

from __future__ import annotations

from packetcore_tap._ip import Segment, read_packet
from packetcore_tap._pcapng import LINKTYPE_RAW, Record

_NULL, _ETHERNET, _LOOP, _LINUX_SLL, _IPV4, _IPV6, _LINUX_SLL2 = 0, 1, 108, 113, 228, 229, 276
_RAW = (LINKTYPE_RAW, 12, 14, _IPV4, _IPV6)  # 12 and 14: what it was before it had a number of its own

NAMES = "RAW, Ethernet, Linux cooked (SLL, SLL2) and loopback"
"""What is understood."""

_IP = (0x0800, 0x86DD)
_VLAN = (0x8100, 0x88A8, 0x9100)


def segment_of(record: Record) -> Segment | None:
    """What a captured packet carries; `None` of what is not TCP or UDP over IP, or not understood."""
    start = _start(record.link_type, record.data)
    return None if start is None else read_packet(record.data[start:], record.length - start)


def is_known(link_type: int) -> bool:
    """Whether packets of this kind are understood."""
    return link_type in (*_RAW, _NULL, _LOOP, _ETHERNET, _LINUX_SLL, _LINUX_SLL2)


def _start(link_type: int, data: bytes) -> int | None:
    """Where the IP header begins; `None` if there is none."""
    if link_type in _RAW:
        return 0
    if link_type in (_NULL, _LOOP):
        return 4  # behind the address family, whose number differs between systems
    if link_type == _ETHERNET:
        start = 14
        while _number(data, start - 2) in _VLAN:
            start += 4
        return start if _number(data, start - 2) in _IP else None
    if link_type == _LINUX_SLL:
        return 16 if _number(data, 14) in _IP else None
    if link_type == _LINUX_SLL2:
        return 20 if _number(data, 0) in _IP else None
    return None


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")
