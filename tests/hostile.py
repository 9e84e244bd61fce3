"""Hostile streams by the hundred thousand: a run that must end without one broken law.

    python tests/hostile.py [COUNT] [SEED]

Each stream is sound frames, damaged (cut short, bytes flipped, deleted and inserted, stray
flags, dangling escapes, headers that announce too much). Fed whole, it has to give what
`Reference` gives: the same rules written once more, a byte at a time, with no thought of
speed. Fed in random chunks, it has to give the same, and bytes are accounted for after
each. A stream depends on its own seed alone, counted up from SEED: to see again what was
reported for one, give COUNT 1 and the seed in the report.
"""

from __future__ import annotations

import random
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from packetcore import Decoder, Malformed, Packet, Reason, encode

FLAG, ESCAPE = 0xFE, 0xFD
HEADER_SIZE = 9


@dataclass
class Reference:
    """What a decoder has to say of `stream`, worked out from the whole of it."""

    stream: bytes
    max_payload: int
    events: list[Packet | Malformed] = field(default_factory=list)
    """What the bytes complete."""
    at_eof: list[Malformed] = field(default_factory=list)
    """What the end of the stream adds."""
    at_timeout: list[Malformed] = field(default_factory=list)
    """What is given up where nothing more comes for long: what is no frame begun."""
    accounted: int = 0
    """How many bytes those events and the flags speak for, the end of the stream left out."""

    def __post_init__(self) -> None:
        before_first_flag, *runs = self.stream.split(bytes([FLAG]))
        if not runs:
            self._open_noise(before_first_flag)
            return
        self._noise(before_first_flag)
        for run in runs[:-1]:
            self.accounted += 1  # the flag in front of it
            self._closed(run)
        self.accounted += 1
        ended_a_packet = len(runs) > 1 and bool(runs[-2]) and isinstance(self.events[-1], Packet)
        self._open(runs[-1], ended_a_packet)

    @property
    def pending(self) -> int:
        """How many bytes no event and no flag speaks for yet."""
        return len(self.stream) - self.accounted

    def _closed(self, run: bytes) -> None:
        """A run that a flag has ended."""
        if not run:
            return
        proof = self._proof_of_too_long(run)
        if proof:
            self._say(Reason.TOO_LONG, run[:proof])
            self._noise(run[proof:])
            return
        plain = self._plain(run)
        if plain is None:
            self._say(Reason.BAD_ESCAPE, run)
        elif len(plain) < HEADER_SIZE:
            self._say(Reason.TOO_SHORT, run)
        else:
            id, type, count, length = struct.unpack(">HBHI", plain[:HEADER_SIZE])
            payload = plain[HEADER_SIZE:]
            if length != len(payload):
                self._say(Reason.LENGTH_MISMATCH, run)
            else:
                self.events.append(Packet(id, payload, type=type, count=count))
                self.accounted += len(run)

    def _open(self, run: bytes, ended_a_packet: bool) -> None:
        """The run that no flag has ended yet, and whether the flag in front of it ended a packet."""
        proof = self._proof_of_too_long(run)
        if proof:
            self._say(Reason.TOO_LONG, run[:proof])
            self._open_noise(run[proof:])
        elif run:
            self.at_eof = [Malformed(Reason.TRUNCATED, len(run), run[:64])]
            if ended_a_packet:
                self.at_timeout = [Malformed(Reason.NOISE, len(run), run[:64])]

    def _noise(self, data: bytes) -> None:
        if data:
            self._say(Reason.NOISE, data)

    def _open_noise(self, data: bytes) -> None:
        if data:
            self.at_eof = self.at_timeout = [Malformed(Reason.NOISE, len(data), data[:64])]

    def _say(self, reason: Reason, data: bytes) -> None:
        self.events.append(Malformed(reason, len(data), data[:64]))
        self.accounted += len(data)

    def _plain(self, run: bytes) -> bytes | None:
        """The run with its escapes undone; `None` for a bad one."""
        plain = bytearray()
        escaped = False
        for byte in run:
            if escaped:
                if byte not in (1, 2):
                    return None
                plain.append(FLAG if byte == 1 else ESCAPE)
                escaped = False
            elif byte == ESCAPE:
                escaped = True
            else:
                plain.append(byte)
        return None if escaped else bytes(plain)

    def _proof_of_too_long(self, run: bytes) -> int:
        """After how many bytes of a run one knows that it is too long; 0 if it is not."""
        for size in range(1, min(len(run), 2 * HEADER_SIZE) + 1):
            header = self._plain(run[:size])
            if header is not None and len(header) == HEADER_SIZE:
                if int.from_bytes(header[5:], "big") > self.max_payload:
                    return size
                break
        bound = 2 * (self.max_payload + HEADER_SIZE)
        return bound + 1 if len(run) > bound else 0


def hostile_stream(rng: random.Random, max_payload: int) -> tuple[bytes, list[Packet]]:
    """A damaged stream, and the packets whose frames were left whole, in order."""
    pieces: list[bytes] = []
    unharmed: list[Packet] = []
    for _ in range(rng.randrange(1, 8)):
        payload = _bytes(rng, rng.choice([0, max_payload, rng.randint(0, max_payload)]))
        packet = Packet(_u16(rng), payload, type=rng.randrange(256), count=_u16(rng))
        frame = encode(packet)
        if rng.random() < 0.5:
            # Between two frames, not in one: it may cost nothing. The flag in front
            # closes what came before and leaves the frame its own.
            if rng.random() < 0.3:
                pieces.append(b"\xfe" + rng.choice([_bytes(rng, 30), b"\xfd", b"\xfe", b"\xfe\xfe"]))
            pieces.append(frame)
            unharmed.append(packet)
        else:
            pieces.append(_damaged(rng, frame, max_payload))
    return b"".join(pieces), unharmed


def _damaged(rng: random.Random, frame: bytes, max_payload: int) -> bytes:
    at = rng.randrange(len(frame))
    match rng.choice(["cut", "flip", "delete", "insert", "flag", "escape", "oversize", "endless"]):
        case "cut":
            return frame[:at]
        case "flip":
            return frame[:at] + bytes([frame[at] ^ (1 << rng.randrange(8))]) + frame[at + 1 :]
        case "delete":
            return frame[:at] + frame[at + rng.randint(1, 3) :]
        case "insert":
            return frame[:at] + _bytes(rng, rng.randint(1, 3)) + frame[at:]
        case "flag":
            return frame[:at] + b"\xfe" + frame[at:]
        case "escape":
            return frame[:at] + b"\xfd" + rng.choice([b"", b"\xfe", b"\xfd", b"\x03"]) + frame[at:]
        case "oversize":
            length = rng.choice([max_payload + 1, 0xFDFEFDFE, 0xFFFFFFFF])
            header = struct.pack(">HBHI", _u16(rng), 0, 1, length)
            return b"\xfe" + header.replace(b"\xfd", b"\xfd\x02").replace(b"\xfe", b"\xfd\x01") + _bytes(rng, 20)
        case _:
            return b"\xfe" + rng.choice([b"\xfd", b"\xfd\x01", b"\x00"]) * (2 * (max_payload + HEADER_SIZE) + 2)


def _bytes(rng: random.Random, size: int) -> bytes:
    if rng.random() < 0.5:
        return rng.randbytes(size)
    return bytes(rng.choices(b"\xfd\xfe\x01\x02\x00\xff", k=size))


def _u16(rng: random.Random) -> int:
    return rng.choice([0, 1, 0xFDFE, 0xFFFF, rng.randrange(0x10000)])


def random_chunks(rng: random.Random, stream: bytes) -> Iterator[bytes]:
    """The stream cut at random, into long chunks or into short ones."""
    longest = rng.choice([1, 2, 5, 50, len(stream) + 1])
    at = 0
    while at < len(stream):
        size = rng.randint(1, longest)
        yield stream[at : at + size]
        at += size


def broken_law(stream: bytes, chunks: list[bytes], unharmed: list[Packet], max_payload: int) -> str | None:
    """Which law the decoder breaks when it is fed `stream` in these chunks; `None` if none.

    Args:
        unharmed: packets that have to come out, in this order, whatever else does.
    """
    whole = Decoder(max_payload=max_payload)
    events = whole.feed(stream)
    reference = Reference(stream, max_payload)
    if events != reference.events:
        return f"frames: gave {events}, not {reference.events}"
    ending = whole.feed_eof()
    if ending != reference.at_eof:
        return f"end of stream: gave {ending}, not {reference.at_eof}"

    decoder = Decoder(max_payload=max_payload)
    bound = 2 * (max_payload + HEADER_SIZE)
    given: list[Packet | Malformed] = []
    fed = accounted = 0
    for chunk in chunks:
        found = decoder.feed(chunk)
        given += found
        fed += len(chunk)
        accounted += chunk.count(FLAG) + sum(map(size_of, found))
        if decoder.pending > bound:
            return f"bounded memory: {decoder.pending} bytes pending of {bound}"
        if min(fed - accounted, bound) != decoder.pending:
            return f"accounting: {accounted} bytes and {decoder.pending} pending of {fed}"
    if given != events or decoder.feed_eof() != ending:
        return f"chunking: gave {given} in chunks and {events} as a whole"
    if accounted + sum(map(size_of, ending)) != len(stream):
        return f"accounting: {accounted} bytes and {ending} of {len(stream)}"
    delivered = iter(given)
    if not all(packet in delivered for packet in unharmed):
        return f"bounded damage: gave {given} without all of {unharmed}"
    return None


def size_of(event: Packet | Malformed) -> int:
    """How many bytes between two flags an event speaks for."""
    return event.size if isinstance(event, Malformed) else len(encode(event)) - 2


def main(count: int, seed: int) -> str | None:
    """Try `count` streams. Returns what to say of the first that breaks a law, if one does."""
    begun = time.monotonic()
    for number in range(seed, seed + count):
        rng = random.Random(number)
        max_payload = rng.choice([0, 1, 8, 40])
        stream, unharmed = hostile_stream(rng, max_payload)
        chunks = list(random_chunks(rng, stream))
        try:
            broken = broken_law(stream, chunks, unharmed, max_payload)
        except Exception as error:
            broken = f"it raised {error!r}"
        if broken is not None:
            sizes = " ".join(str(len(chunk)) for chunk in chunks)
            return f"seed {number}: {broken}\nmax_payload={max_payload} chunks: {sizes}\nstream: {stream.hex()}"
    seconds = time.monotonic() - begun
    sys.stdout.write(f"{count} hostile streams, seeds {seed} to {seed + count - 1}: no law broken, {seconds:.1f} s\n")
    return None


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:3]]
    sys.exit(main(*arguments, *[100_000, 1][len(arguments) :]))
