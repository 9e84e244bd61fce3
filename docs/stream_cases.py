"""Write stream-cases.json: streams that are cut, noisy or broken, and what a decoder makes of them.

python docs/stream_cases.py           write it
python docs/stream_cases.py --check   exit 1 if what stands there is another
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from packetcore import Decoder, Malformed, Packet, encode

FILE = Path(__file__).with_name("stream-cases.json")
MAX_PAYLOAD = 1024

ONE, TWO = encode(Packet(1, b"one")), encode(Packet(2, b"two", type=7))
BODY = ONE[1:-1]
CASES: dict[str, bytes] = {
    "no bytes": b"",
    "one frame": ONE,
    "two frames stuck together": ONE + TWO,
    "one flag between two frames": ONE + TWO[1:],
    "flags before, between and behind": b"\xfe\xfe" + ONE + b"\xfe\xfe\xfe" + TWO + b"\xfe",
    "an empty payload": encode(Packet(0)),
    "a payload of flags and escapes": encode(Packet(3, b"\xfe\xfd\xfe\xfd\xfd\x01\xfd\x02")),
    "a header of flags and escapes": encode(Packet(0xFEFD, b"", type=0xFE, count=0xFDFE)),
    "a length that is escaped": encode(Packet(4, bytes(0xFD))),
    "a payload as long as is taken": encode(Packet(5, b"\xfe" * MAX_PAYLOAD)),
    "noise before the first flag": b"\x00\x01\xfd\x02" + ONE,
    "noise alone": b"\r\n",
    "a line end behind a frame": ONE + b"\r\n" + TWO,
    "a flag is missing: two frames become one run": ONE[:-1] + TWO[1:] + ONE,
    "an escape before another byte": b"\xfe" + BODY[:4] + b"\xfd\x03" + BODY[4:] + b"\xfe" + TWO,
    "an escape before the closing flag": ONE[:-1] + b"\xfd" + TWO,
    "a run shorter than a header": b"\xfe\x00\x01\x02\xfe" + TWO,
    "a length above the payload's": b"\xfe" + BODY[:8] + b"\x04" + BODY[9:] + b"\xfe" + TWO,
    "a length below the payload's": b"\xfe" + BODY[:8] + b"\x02" + BODY[9:] + b"\xfe" + TWO,
    "a length above what is taken": b"\xfe" + BODY[:5] + (MAX_PAYLOAD + 1).to_bytes(4, "big") + b"never read\xfe" + TWO,
    "a run that never ends": b"\xfe" + BODY[:5] + MAX_PAYLOAD.to_bytes(4, "big") + bytes(3000) + b"\xfe" + TWO,
    "the end within a frame": ONE + TWO[:-4],
    "the end behind an opening flag": ONE + b"\xfe",
}


def told(event: Packet | Malformed) -> dict[str, object]:
    if isinstance(event, Malformed):
        return {"malformed": event.reason.name, "size": event.size}
    return {"id": event.id, "type": event.type, "count": event.count, "payload": event.payload.hex()}


def text() -> str:
    rows = []
    for name, wire in CASES.items():
        decoder = Decoder(max_payload=MAX_PAYLOAD)
        events = [told(event) for event in [*decoder.feed(wire), *decoder.feed_eof()]]
        rows.append("  " + json.dumps({"name": name, "wire": wire.hex(), "events": events}))
    return f'{{"max_payload": {MAX_PAYLOAD}, "cases": [\n' + ",\n".join(rows) + "\n]}\n"


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        return int(FILE.read_text(encoding="utf-8") != text())
    FILE.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
