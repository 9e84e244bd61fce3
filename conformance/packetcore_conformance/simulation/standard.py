"""What the product itself is simulated with: a gateway and its devices, an office with a pool, files over other
framings and over WebSocket, telemetry over UDP, and strangers, on machines and paths that fail.

Each application checks what it was promised, and says so where it was not: all that was sent in a conversation
is delivered once and in order, what is missing is missing at the end of one that did not end well, and a reply
is the reply to its own request.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import Any

from packetcore import (
    Backoff,
    CloseReason,
    Config,
    Handler,
    NotConnected,
    Packet,
    PoolClosed,
    RequestPending,
    Session,
    SessionClosed,
)
from packetcore.framings import COBS, HDLC, SLIP, Framing, LengthPrefix
from packetcore_conformance.simulation._adapter import (
    ConnectionPool,
    connect,
    connect_udp,
    serve,
    serve_udp,
    sleep,
)
from packetcore_conformance.simulation._host import Host
from packetcore_conformance.simulation._scenario import Scenario
from packetcore_conformance.simulation._steps import FAULTS, WEATHER, Step, draw_faults, pick
from packetcore_sockets import WebSocketOptions
from packetcore_tap import Impairments

HELLO, REPORT, RECEIPT, ASK, ANSWER, BULK, ALIVE = range(1, 8)

GATEWAY, OFFICE_DESK, FILES, BROWSERS, TELEMETRY = 5000, 5001, 5002, 5003, 5004

FRAMINGS: list[Framing] = [COBS(), HDLC(), SLIP(), LengthPrefix(4)]

VERBS = ("report", "ask", "command", "fetch", "lend", "hold", "file", "browse", "measure", "stranger")
"""What devices, the gateway, the office and strangers do."""

GONE = (SessionClosed, OSError, TimeoutError, RequestPending, NotConnected)
"""What a program has to expect of a network."""

TOKEN = struct.Struct(">QdI")
"""A request: its token, how long to think about it, and the size of the reply."""

FILE = b"a file: "
PIECE = struct.Struct(">8sQII")
"""A piece of a file: of which, which one, and of how many."""

SLOWLY = Impairments(latency=0.01, bandwidth=500_000.0)
"""How the end is."""


class Told:
    """What one side of a conversation was told by the other, which counts."""

    __slots__ = ("first", "is_excused", "next", "sent")

    def __init__(self) -> None:
        self.first = self.next = 0
        self.sent: int | None = None  # all that the other sent, once it has closed
        self.is_excused = False  # the other's program was killed: its system says that all is well


class Gateway(Handler):
    """The server of the devices."""

    def __init__(self, world: Standard) -> None:
        self.world = world
        self.device: dict[Session, tuple[int, int]] = {}
        self.reports: dict[int, int] = {}
        self.serial: dict[Session, int] = {}

    def connected(self, session: Session) -> None:
        self.serial[session] = 0

    def packet_received(self, session: Session, packet: Packet) -> None:
        fail = self.world.simulation.world.violate
        if packet.type == ALIVE:
            return
        if packet.type == HELLO:
            device, life = struct.unpack(">II", packet.payload)
            if session in self.device:
                fail(f"gateway: HELLO of device {device} came twice")
            self.device[session] = (device, life)
            session.bind(device)
            return
        if session not in self.device:
            fail(f"gateway: {packet.type} came before HELLO")
            return
        device, life = self.device[session]
        if packet.type == REPORT:
            (number,) = struct.unpack_from(">I", packet.payload)
            told = self.world.told_by_device(device, life)
            if number <= self.reports.get(device, -1):
                fail(f"gateway: report {number} of device {device} came again, after {self.reports[device]}")
            if number != max(told.first, told.next):
                fail(f"gateway: report {number} of device {device} came, not {max(told.first, told.next)}")
            self.reports[device], told.next = number, number + 1
            self.send(session, RECEIPT, packet.payload[:4])
        elif packet.type == ASK:
            self.world.answer(self.world.gateway, session, packet)

    def send(self, session: Session, kind: int, payload: bytes) -> None:
        """Send something with a number."""
        serial = self.serial[session]
        self.serial[session] = serial + 1
        session.send(Packet(serial % 60_000 + 1_000, struct.pack(">I", serial) + payload, type=kind))

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        serial = self.serial.pop(session)
        device, life = self.device.pop(session, (-1, 0))
        if device >= 0:
            told = self.world.told_by_device(device, life)
            came = max(told.first, told.next)
            if reason is CloseReason.PEER and not told.is_excused and told.sent is not None and came < told.sent:
                self.world.simulation.world.violate(
                    f"gateway: device {device} ended well and sent reports up to {told.sent - 1}, "
                    f"of which those from {came} on never came"
                )
            self.world.told_by_gateway(device, life).sent = serial


class Device(Handler):
    """One of the devices, over all its connections."""

    def __init__(self, world: Standard, number: int) -> None:
        self.world = world
        self.number = number
        self.life = 0
        self.reports = 0
        self.client: Any = None

    def connected(self, session: Session) -> None:
        self.life += 1
        kept = self.client.kept if self.client else 0
        self.world.told_by_device(self.number, self.life).first = self.reports - kept
        session.send(Packet(1, struct.pack(">II", self.number, self.life), type=HELLO))

    def packet_received(self, session: Session, packet: Packet) -> None:
        if packet.type == ALIVE:
            return
        if packet.type == ASK:
            self.world.answer(self.world.devices[self.number], session, packet)
            return
        if packet.type not in (RECEIPT, BULK):
            self.world.simulation.world.violate(
                f"device {self.number}: an answer with id={packet.id} came that nobody waits for"
            )
            return
        (serial,) = struct.unpack_from(">I", packet.payload)
        told = self.world.told_by_gateway(self.number, self.life)
        if serial != told.next:
            self.world.simulation.world.violate(f"device {self.number}: {serial} came in the place of {told.next}")
        told.next = serial + 1

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        self.world.told_by_device(self.number, self.life).sent = self.reports - self.client.kept
        told = self.world.told_by_gateway(self.number, self.life)
        if reason is CloseReason.PEER and not told.is_excused and told.sent is not None and told.next != told.sent:
            self.world.simulation.world.violate(
                f"device {self.number}: the gateway ended well and sent {told.sent}, of which {told.next} came"
            )


class Standard(Scenario):
    """All of it."""

    seconds = 120.0

    def begin(self) -> None:
        simulation = self.simulation
        random = self.random = simulation.random
        simulation.wires.keeps_after_reset = random.random() < 0.7
        self.pings = WebSocketOptions(ping_interval=1 + 10 * random.random() if random.random() < 0.5 else None)
        self.timing = Config(
            idle_timeout=5 + 30 * random.random(),
            frame_timeout=3.0,
            close_timeout=2.0,
            connect_timeout=5.0,
            write_high_water=8_192,
            write_low_water=1_024,
            max_outstanding=65_536 if random.random() < 0.3 else 262_144,
            interframe_delay=0.005 if random.random() < 0.2 else 0.0,
            max_requests_in_flight=1 if random.random() < 0.2 else None,
            request_hold=1_000.0,  # longer than any reply is under way
        )
        self.datagram_timing = replace(self.timing, interframe_delay=0.0)
        # In every other world devices stay connected; in the others they are silent until that ends it.
        interval = self.timing.idle_timeout / 3 if self.timing.idle_timeout and random.random() < 0.6 else None
        self.lively = replace(self.timing, keepalive_interval=interval, keepalive_packet=Packet(2, type=ALIVE))
        self.framing = FRAMINGS[int(random.random() * len(FRAMINGS))]
        self.tokens = 0
        self.paused: dict[str, float] = {}
        self.excused: set[int] = set()
        self._by_device: dict[tuple[int, int], Told] = {}
        self._by_gateway: dict[tuple[int, int], Told] = {}
        self.servers: dict[int, Any] = {}
        self.pool: ConnectionPool | None = None
        self.gateway = simulation.host("gateway")
        self.office = simulation.host("office")
        self.devices = [simulation.host(f"device {number}") for number in range(1 + int(random.random() * 4))]
        self.handlers = [Device(self, number) for number in range(len(self.devices))]
        self.told_at_files: dict[int, int] = {}
        self.sent_to_files: dict[int, int] = {}
        self.datagrams: set[bytes] = set()
        self.gateway.run(self.serve)
        self.office.run(self.open_office)
        for number, host in enumerate(self.devices):
            host.run(self.program(number))

    # Programs.

    async def serve(self) -> None:
        """The gateway's: it tries until there are descriptors."""
        self.servers = {}  # those of a program that was killed are nobody's
        while True:
            try:
                await self.try_to_serve()
            except OSError:
                for server in self.servers.values():
                    await server.close(0.0)
                self.servers = {}
                await sleep(1.0)
            else:
                return

    async def try_to_serve(self) -> None:
        """Listen on all ports."""
        everywhere = "0.0.0.0"
        self.servers[GATEWAY] = await serve(Gateway(self), everywhere, GATEWAY, config=self.lively)
        self.servers[OFFICE_DESK] = await serve(self.echo, everywhere, OFFICE_DESK, config=self.timing)
        self.servers[FILES] = await serve(self.take_file, everywhere, FILES, config=self.timing, framing=self.framing)
        self.servers[BROWSERS] = await serve(
            self.take_file, everywhere, BROWSERS, config=self.timing, websocket=self.pings
        )
        self.servers[TELEMETRY] = await serve_udp(self.telemetry(), everywhere, TELEMETRY, config=self.datagram_timing)

    def program(self, number: int) -> Callable[[], Any]:
        """A device's."""

        async def run() -> None:
            device = self.handlers[number]
            device.client = await connect(
                "gateway",
                GATEWAY,
                device,
                reconnect=Backoff(initial=0.2, maximum=8.0, reset_after=5.0),
                keep=5,
                config=self.lively,
            )

        return run

    async def open_office(self) -> None:
        """The office's."""
        self.pool = ConnectionPool("gateway", OFFICE_DESK, config=self.timing, max_size=3, max_idle=20.0)

    async def echo(self, stream: Any) -> None:
        """Send back what comes, some of it late."""
        async for packet in stream:
            think = TOKEN.unpack_from(packet.payload)[1]
            if think:
                await sleep(think)
            await stream.send(packet)

    async def take_file(self, stream: Any) -> None:
        """Count what comes: all of it, where it ends well."""
        number = -1
        while True:
            try:
                item = await stream.recv()
            except SessionClosed as closed:
                ended_well = closed.reason is CloseReason.PEER
                break
            data = item if isinstance(item, bytes) else item.payload
            if len(data) < PIECE.size or not data.startswith(FILE):
                continue  # a stranger's
            _, of, index, _ = PIECE.unpack_from(data)
            if number >= 0 and (of, index) != (number, self.told_at_files[number]):
                self.simulation.world.violate(f"files: {index} of {of} came, not {self.told_at_files[number]}")
            number = of
            self.told_at_files[of] = index + 1
        if ended_well and number >= 0 and number not in self.excused:
            had, sent = self.told_at_files[number], self.sent_to_files[number]
            if had < sent:
                self.simulation.world.violate(f"files: {number} ended well, with {had} frames of {sent} that were sent")

    def telemetry(self) -> Handler:
        """What serves datagrams."""
        standard = self

        class Telemetry(Handler):
            def packet_received(self, session: Session, packet: Packet) -> None:
                if packet.payload not in standard.datagrams:
                    standard.simulation.world.violate(f"telemetry: a packet came that nobody sent, with id={packet.id}")
                if packet.type == ASK:
                    standard.answer(standard.gateway, session, packet)

        return Telemetry()

    # Requests.

    def new_request(self, id: int, think: float, size: int) -> tuple[int, Packet]:
        """A request that can be told from every other."""
        self.tokens += 1
        return self.tokens, Packet(id, TOKEN.pack(self.tokens, think, size), type=ASK)

    def answer(self, host: Host, session: Session, packet: Packet) -> None:
        """Answer a request, after it was thought about."""
        _, think, size = TOKEN.unpack_from(packet.payload)
        reply = Packet(packet.id, packet.payload + bytes(size), type=ANSWER)

        def send() -> None:
            if session.is_open:
                session.send(reply)

        if think > 0:
            host.call_at(host.time() + think, send)
        elif think == 0:
            send()

    def check_answer(self, token: int, reply: Any) -> None:
        """See that a reply is to this request."""
        of = TOKEN.unpack_from(reply.payload)[0]
        if of != token:
            self.simulation.world.violate(f"the reply to request {of} was given to request {token}")

    def ask(self, host: Host, session: Session, packet: Packet, token: int, timeout: float, wait: bool) -> None:
        """Ask by a session, and see what comes of it."""
        began = self.simulation.now
        answers: list[Any] = []

        def done(reply: Any) -> None:
            answers.append(reply)
            now = self.simulation.now
            if len(answers) > 1:
                self.simulation.world.violate(f"request {token} was answered twice: {answers}")
            if isinstance(reply, Packet):
                self.check_answer(token, reply)
            late = now - began - timeout
            if late > 0.001 and not (self.takes_turns or self.was_late(host, began)):
                self.simulation.world.violate(f"request {token} with timeout={timeout} took {now - began:.6f} s")

        try:
            session.request(packet, done, timeout=timeout, wait=wait)
        except GONE:
            return

    @property
    def takes_turns(self) -> bool:
        """Whether the time of a request begins with its turn."""
        return self.timing.max_requests_in_flight is not None

    def was_late(self, host: Host, since: float) -> bool:
        """Whether a host did nothing for a while since then."""
        return self.paused.get(host.name, -1.0) >= since

    # What counts.

    def told_by_device(self, device: int, life: int) -> Told:
        """What the gateway was told by a device in one conversation."""
        return self._by_device.setdefault((device, life), Told())

    def told_by_gateway(self, device: int, life: int) -> Told:
        """What a device was told by the gateway."""
        return self._by_gateway.setdefault((device, life), Told())

    # Steps.

    def steps(self, random: Random) -> list[Step]:
        devices = [host.name for host in self.devices]
        paths = [f"gateway|{name}" for name in (*devices, "office")]
        hosts = ["gateway", "office", *devices]
        moments = [random.random() * self.seconds for _ in range(2 + int(random.random() * 6))]

        def moment() -> float:
            """Some things come together."""
            if random.random() < 0.2:
                return round(random.random() * self.seconds, 3)
            return round(moments[int(random.random() * len(moments))] + random.random() ** 2 * 8, 3)

        steps = [Step(0.0, "impair", path, pick(random, [*WEATHER])) for path in paths if random.random() < 0.5]
        faults = draw_faults(random, paths, hosts, self.seconds, 2 + int(random.random() * 14))
        steps += [fault._replace(at=moment()) for fault in faults]
        for _ in range(20 + int(random.random() * 80)):
            verb = pick(
                random, ("report", "ask", "command", "fetch", "lend", "hold", "file", "browse", "measure", "stranger")
            )
            steps.append(Step(moment(), verb, pick(random, devices), round(random.random(), 3)))
        for _ in range(int(random.random() * 3)):
            steps.append(Step(moment(), "renew", "gateway", round(random.random(), 3)))
        return sorted(steps, key=lambda step: (step.at, step.verb, step.where))

    def do(self, step: Step) -> None:
        if step.verb == "pause":
            until = self.simulation.now + float(step.value)
            self.paused[step.where] = max(until, self.paused.get(step.where, 0.0))
        if step.verb in ("crash", "lose_power"):
            for told in (*self._by_device.values(), *self._by_gateway.values()):
                told.is_excused = True
            self.excused.update(range(self.tokens + 1))
        if step.verb in FAULTS:
            super().do(step)
            return
        acting = {"command": self.gateway, "fetch": self.gateway, "hold": self.gateway, "lend": self.office}
        host = acting.get(step.verb) or self.simulation.hosts[step.where]
        host.call_soon(lambda: super(Standard, self).do(step))  # once it is not paused; never, if it is down

    def number(self, step: Step) -> int:
        """Of the device that a step is for."""
        return int(step.where.rpartition(" ")[2])

    def do_report(self, step: Step) -> None:
        """A device reports, several times in a row."""
        value = float(step.value)
        self.report(self.handlers[self.number(step)], 1 + int(value * 12), int(value * 200))

    def report(self, device: Device, count: int, size: int) -> None:
        """Send reports, or have them kept."""
        for _ in range(count):
            if device.client is None:
                return
            try:
                device.client.send(Packet(900, struct.pack(">I", device.reports) + bytes(size), type=REPORT))
            except GONE:
                return
            device.reports += 1

    def do_ask(self, step: Step) -> None:
        """A device asks the gateway."""
        client = self.handlers[self.number(step)].client
        if client is not None and client.session is not None:
            self.ask_some(step, self.devices[self.number(step)], client.session, 10)

    def do_command(self, step: Step) -> None:
        """The gateway asks a device."""
        server = self.servers.get(GATEWAY)
        session = server and server.sessions.find(self.number(step))
        if session:
            self.ask_some(step, self.gateway, session, 20)

    def ask_some(self, step: Step, host: Host, session: Session, first: int) -> None:
        """Ask some times in a row by few ids, and be answered late or never now and then."""
        random = self.chance(step)
        for _ in range(1 + int(random.random() * 4)):
            think = (0.0, 0.0, random.random() * 3, -1.0)[int(random.random() * 4)]
            id = first + int(random.random() * 5)
            token, packet = self.new_request(id, think, int(random.random() * 300))
            self.ask(host, session, packet, token, 0.1 + random.random() * 2, random.random() < 0.5)

    def do_fetch(self, step: Step) -> None:
        """The gateway has much to tell a device, and the device nothing to say."""
        server = self.servers.get(GATEWAY)
        session = server and server.sessions.find(self.number(step))
        if server is None or not session:
            return
        handler: Any = server.endpoint.new_handler()
        gateway = handler.handler
        for _ in range(1 + int(float(step.value) * 100)):
            if not session.is_open:
                return
            gateway.send(session, BULK, bytes(1_000))

    def do_hold(self, step: Step) -> None:
        """The gateway reads nothing of a device for a while."""
        server = self.servers.get(GATEWAY)
        session = server and server.sessions.find(self.number(step))
        if session:
            session.pause()
            self.gateway.call_at(self.simulation.now + float(step.value) * 10, session.resume)

    def do_lend(self, step: Step) -> None:
        """Somebody in the office takes a stream of the pool."""
        if self.pool is None:
            return
        over: list[bool] = []
        task = self.office.spawn(self.lend(step, self.pool), lambda: over.append(True))
        random = self.chance(step)
        if random.random() < 0.3:  # somebody gives up, wherever it waits

            def give_up() -> None:
                if not over:
                    task.cancel()

            self.office.call_at(self.simulation.now + random.random() * 3, give_up)

    async def lend(self, step: Step, pool: Any) -> None:
        """Ask by a stream of the pool, a few times."""
        random = self.chance(step)
        try:
            async with pool.acquire() as stream:
                if pool.size > 3:
                    self.simulation.world.violate(f"office: the pool has {pool.size} connections, max_size=3")
                for _ in range(1 + int(random.random() * 3)):
                    think = random.random() * 2 if random.random() < 0.4 else 0.0
                    token, packet = self.new_request(7, think, 0)
                    began = self.simulation.now
                    timeout = 0.2 + random.random() * 2
                    if random.random() < 0.3:
                        await stream.send(packet)
                        await sleep(random.random())
                        if stream.has_received:
                            return  # and the next is not to be lent what came
                        self.check_answer(token, await stream.recv())
                        continue
                    try:
                        self.check_answer(token, await stream.request(packet, timeout=timeout))
                    finally:
                        took = self.simulation.now - began
                        if (
                            took > timeout + 0.001
                            and self.timing.max_requests_in_flight is None
                            and not self.was_late(self.office, began)
                        ):
                            self.simulation.world.violate(f"office: timeout={timeout} took {took:.6f} s")
        except (*GONE, PoolClosed):
            pass

    def do_file(self, step: Step) -> None:
        """A device sends a file, in frames of another framing, and closes at once."""
        host = self.devices[self.number(step)]
        host.spawn(self.send_file(step, "gateway", FILES, framing=self.framing), lambda: None)

    def do_browse(self, step: Step) -> None:
        """The same over WebSocket."""
        host = self.devices[self.number(step)]
        host.spawn(self.send_file(step, f"ws://gateway:{BROWSERS}/"), lambda: None)

    async def send_file(self, step: Step, *place: Any, **options: Any) -> None:
        random = self.chance(step)
        self.tokens += 1
        self.sent_to_files[self.tokens] = 0
        number, count = self.tokens, 1 + int(random.random() ** 2 * 200)
        began = self.simulation.now
        try:
            stream = await connect(*place, config=self.timing, **options)
        except GONE:
            host = self.devices[self.number(step)]
            if self.simulation.now - began > 5.001 and not self.was_late(host, began):
                took = self.simulation.now - began
                self.simulation.world.violate(f"connect took {took:.6f} s, connect_timeout=5.0")
            return
        try:
            for index in range(count):
                data = PIECE.pack(FILE, number, index, count) + bytes(int(random.random() * 600))
                await stream.send(data if options else Packet(5, data))
                self.sent_to_files[number] = index + 1
            await stream.close()
        except GONE:
            stream.session.abort()

    def do_measure(self, step: Step) -> None:
        """A device measures over UDP."""
        host = self.devices[self.number(step)]
        host.spawn(self.measure(step), lambda: None)

    async def measure(self, step: Step) -> None:
        random = self.chance(step)
        stream = await connect_udp("gateway", TELEMETRY, config=self.datagram_timing)
        try:
            for _ in range(1 + int(random.random() * 6)):
                self.tokens += 1
                payload = TOKEN.pack(self.tokens, 0.0, 0)
                self.datagrams.add(payload)
                await stream.send(Packet(8, payload, type=REPORT))
            for id in (9, 10):  # one each: a reply that came twice would answer the next request of the same id
                think = random.random() * 2 if random.random() < 0.3 else 0.0
                token, packet = self.new_request(id, think, 0)
                self.datagrams.add(packet.payload)
                self.check_answer(token, await stream.request(packet, timeout=0.5 + random.random()))
        except GONE:
            pass
        finally:
            await stream.close()

    def do_stranger(self, step: Step) -> None:
        """Somebody connects who does not keep to anything."""
        host = self.devices[self.number(step)]
        random = self.chance(step)
        sock = host.new_socket(0, 0, 0) if host.machine.most_sockets is None else None
        if sock is None:
            return
        with suppress(BlockingIOError):
            sock.connect((self.gateway.machine.addresses[0], (GATEWAY, FILES, BROWSERS)[int(random.random() * 3)]))
        rubbish = bytes(int(random.random() * 256) for _ in range(int(random.random() * 60)))
        says = (rubbish, b"\xfe\x00\x01", b"", b"GET / HTTP/1.1\r\n")[int(random.random() * 4)]
        resets = random.random() < 0.4
        stays = random.random() * 20

        def talk() -> None:
            host.set_writer(sock, None)
            try:
                if says:
                    sock.send(says)
            except OSError:
                sock.close()

        def leave() -> None:
            if resets:
                sock.setsockopt(1, 13, b"")
            sock.close()

        host.set_writer(sock, talk)
        self.simulation.at(self.simulation.now + stays, leave)

    def do_renew(self, step: Step) -> None:
        """The gateway is restarted in good order."""
        if self.servers.keys() >= {GATEWAY, OFFICE_DESK, FILES, BROWSERS, TELEMETRY}:
            servers, self.servers = self.servers, {}
            self.gateway.spawn(self.renew(servers, float(step.value) * 8), lambda: None)

    async def renew(self, servers: dict[int, Any], grace: float) -> None:
        for server in servers.values():
            began = self.simulation.now
            await server.close(grace)
            took = self.simulation.now - began
            limit = grace + 2.0 + 0.001
            if took > limit and not self.was_late(self.gateway, began):
                self.simulation.world.violate(f"gateway: close(grace={grace}) took {took:.6f} s")
        await sleep(1.0)
        await self.serve()

    # The end.

    def check(self) -> None:
        self.simulation.complete(self.see_that_all_is_well(), self.office)

    async def see_that_all_is_well(self) -> None:
        for number, device in enumerate(self.handlers):
            if not await self.is_well(number, device):
                self.simulation.world.violate(f"device {number} reaches nobody, long after peace came")

    async def is_well(self, number: int, device: Device) -> bool:
        for attempt in range(60):
            session = device.client.session
            if session is not None and session.is_open:
                token, packet = self.new_request(30 + attempt, 0.0, 0)
                answers: list[Any] = []

                def done(reply: Any, token: int = token, answers: list[Any] = answers) -> None:
                    answers.append(reply)
                    if isinstance(reply, Packet):
                        self.check_answer(token, reply)

                with suppress(*GONE):
                    session.request(packet, done, timeout=2.0)
                await sleep(2.5)
                if answers and isinstance(answers[0], Packet):
                    return True
            await sleep(1.0)
        return False

    async def end(self) -> None:
        """Close all of it while much is under way both ways: nothing is lost, and nothing reset."""
        resets = self.simulation.watch.reasons.get(CloseReason.RESET, 0)
        assert self.pool is not None
        await self.pool.close()
        server = self.servers[GATEWAY]
        gateway: Any = server.endpoint.new_handler()
        for number, device in enumerate(self.handlers):
            session = server.sessions.find(number)
            self.simulation.path(self.gateway, self.devices[number]).impair(SLOWLY)
            if session is not None and device.client.session is not None:
                self.report(device, 12, 4_000)
                for _ in range(10):
                    gateway.handler.send(session, BULK, bytes(1_000))
            if number % 2:
                await device.client.close()
        for other in self.servers.values():
            await other.close(4.0)
        for device in self.handlers:
            await device.client.close()
        if self.simulation.watch.reasons.get(CloseReason.RESET, 0) > resets:
            self.simulation.world.violate("a conversation that was closed in peace ended with RESET")
