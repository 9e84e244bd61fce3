"""Bytes under a mask: XORed with a key that repeats."""

from __future__ import annotations

_SMALL = 1024
"""Bytes up to which numbers are the faster way."""

_XOR = [bytes(byte ^ key for byte in range(256)) for key in range(256)]


def masked(data: bytes | bytearray | memoryview, key: bytes, /) -> bytes:
    """Mask or unmask bytes, as WebSocket does it (RFC 6455, section 5.3).

    Args:
        data: the bytes.
        key: 4 bytes; byte n of the data is XORed with byte n modulo 4 of it.

    Raises:
        ValueError: the key has not 4 bytes.
    """
    if len(key) != 4:
        raise ValueError(f"a key of {len(key)} bytes: it has 4")
    size = len(data)
    if size <= _SMALL:
        mask = int.from_bytes((key * (size // 4 + 1))[:size], "little")
        return (int.from_bytes(data, "little") ^ mask).to_bytes(size, "little")
    result = bytearray(data)
    for lane in range(4):
        if key[lane]:
            result[lane::4] = result[lane::4].translate(_XOR[key[lane]])
    return bytes(result)
