"""An echo server and a client on plain sockets, and every call that their handlers get.

The server accepts, receives, answers and hears of the end; so does the client, which
closes once its answer has come. Each side has a thread of its own.
"""

from threading import Event

from packetcore import CloseReason, Handler, Packet, Session
from packetcore_blocking import connect, serve


class Printer(Handler):
    """Prints what happens to a session."""

    def __init__(self, name: str) -> None:
        self.name = name

    def say(self, what: str) -> None:
        print(f"{self.name}: {what}\n", end="")  # in one piece: two threads print

    def connected(self, session: Session) -> None:
        self.say(f"connected to {session.peer[0]}")

    def packet_received(self, session: Session, packet: Packet) -> None:
        self.say(f"received {packet.payload!r} with id {packet.id:#x}")

    def sent(self, session: Session, nbytes: int) -> None:
        self.say(f"sent {nbytes} bytes")

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        self.say(f"disconnected, {reason.name}: {reason.value}")


class EchoServer(Printer):
    def packet_received(self, session: Session, packet: Packet) -> None:
        super().packet_received(session, packet)
        session.send(packet)


class EchoClient(Printer):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.over = Event()

    def connected(self, session: Session) -> None:
        super().connected(session)
        session.send(Packet(0x10, b"hello"))

    def packet_received(self, session: Session, packet: Packet) -> None:
        super().packet_received(session, packet)
        session.close()

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        super().disconnected(session, reason)
        self.over.set()


def main() -> None:
    with serve(EchoServer("server")) as server:
        client = EchoClient("client")
        host, port = server.address
        connect(host, port, client)
        client.over.wait()


if __name__ == "__main__":
    main()
