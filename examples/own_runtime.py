"""The protocol bound to plain sockets by hand: a `Connection` does no I/O and has no clock.

Whoever drives it moves the bytes, says what time it is, and comes back at the next
deadline. One loop over `select` is all the runtime that both ends of this conversation
need: the client asks, the server answers, the client finishes and the server with it.
"""

import select
import socket
import time

from packetcore import Closed, Config, Connection, EndOfStream, Event, Packet, State


class Peer:
    """One end: a blocking socket and the connection that says what its bytes mean."""

    def __init__(self, name: str, sock: socket.socket) -> None:
        self.name = name
        self.sock = sock
        self.connection = Connection(Config(idle_timeout=5.0), now=time.monotonic())

    def receive(self) -> None:
        """The socket is readable: bytes, or the end of them."""
        now = time.monotonic()
        data = self.sock.recv(4096)
        self.handle(self.connection.receive_data(data, now) if data else self.connection.receive_eof(now))

    def handle(self, events: list[Event]) -> None:
        """After every input: look at what came, send what there is to send."""
        for event in events:
            match event:
                case Packet(id, payload):
                    print(f"{self.name}: packet {id} {payload!r}")
                    self.packet_received(event)
                case EndOfStream():
                    print(f"{self.name}: the peer has finished sending")
                    self.handle(self.connection.close(time.monotonic()))
                case Closed(reason):
                    print(f"{self.name}: closed, {reason.name}: {reason.value}")
        if data := self.connection.bytes_to_send():
            self.sock.sendall(data)
        if self.connection.state is State.CLOSED:
            self.sock.close()

    def packet_received(self, packet: Packet) -> None:
        """The application."""


class Server(Peer):
    def packet_received(self, packet: Packet) -> None:
        self.connection.send(Packet(packet.id, b"you said " + packet.payload))


class Client(Peer):
    def packet_received(self, packet: Packet) -> None:
        self.connection.close(time.monotonic())
        self.sock.shutdown(socket.SHUT_WR)


def run(peers: list[Peer]) -> None:
    """Drive connections until all are closed."""
    while live := {peer.sock: peer for peer in peers if peer.connection.state is not State.CLOSED}:
        deadlines = [peer.connection.next_deadline() for peer in live.values()]
        due = min(deadline for deadline in deadlines if deadline is not None)
        readable, _, _ = select.select(live, [], [], max(0.0, due - time.monotonic()))
        for sock in readable:
            live[sock].receive()
        for peer in live.values():
            peer.handle(peer.connection.handle_deadline(time.monotonic()))


if __name__ == "__main__":
    client_socket, server_socket = socket.socketpair()
    client, server = Client("client", client_socket), Server("server", server_socket)
    client.connection.send(Packet(1, b"hello"))
    client.handle([])
    run([client, server])
