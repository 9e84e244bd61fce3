"""A packet as bytes, and packets out of bytes that arrive stuck together and cut apart.

The payload holds both bytes that the format reserves: FE, the flag at either end of a
frame, and FD, the escape that stands in for them inside.
"""

from packetcore import Decoder, Malformed, Packet, encode

packet = Packet(0x10, bytes.fromhex("010304fe01fd02"))
frame = encode(packet)
print(f"payload {packet.payload.hex()} encodes to {frame.hex()}")

# Two of them in one stream, in three pieces that end wherever the network cut them.
stream = frame + frame
decoder = Decoder()
for piece in (stream[:7], stream[7:30], stream[30:]):
    events = decoder.feed(piece)
    print(f"{len(piece)} bytes came: {len(events)} complete, {decoder.pending} bytes wait for more")
    for event in events:
        match event:
            case Packet(id, payload):
                print(f"  packet with id {id:#x} and payload {payload.hex()}")
            case Malformed(reason, size):
                print(f"  {size} bytes are no packet: {reason.value}")
