"""A server and a client as coroutines: `async for` over what comes, `await` for what goes.

The server answers each packet in capitals. The client sends two packets, reads both
answers, and closes; that ends the server's loop too.
"""

import asyncio

from packetcore import Packet
from packetcore_asyncio import Stream, connect, serve


async def shout(stream: Stream) -> None:
    async for packet in stream:
        print(f"server: {packet.payload!r}")
        await stream.send(Packet(packet.id, packet.payload.upper()))
    print("server: the client has finished")


async def main() -> None:
    async with await serve(shout) as server, await connect(*server.address) as stream:
        words = [b"hello", b"good-bye"]
        for id, word in enumerate(words):
            await stream.send(Packet(id, word))
        async for packet in stream:
            print(f"client: {packet.payload!r}")
            if packet.payload == words[-1].upper():
                break


if __name__ == "__main__":
    asyncio.run(main())
