"""100,000 reconnects of 1,000 devices, each from a new port, over TCP and UDP in one register."""

from __future__ import annotations

import gc
import random
from collections import deque
from weakref import WeakSet

from packetcore import (
    Address,
    Carrier,
    CloseReason,
    Config,
    DatagramEndpoint,
    Endpoint,
    Handler,
    Packet,
    Session,
    SessionPool,
    encode,
)

DEVICES = 1_000
RECONNECTS = 100_000
HELLOS = [encode(Packet(1, device.to_bytes(2, "big"))) for device in range(DEVICES)]
"""What each device says when it comes: who it is."""


class Registrar(Handler):
    """Binds each session to the device that it says it is."""

    def __init__(self) -> None:
        self.live: dict[int, Session] = {}
        self.last: Session
        self.last_id = 0
        self.ended = self.replaced = 0

    def connected(self, session: Session) -> None:
        assert session.id > self.last_id, "an id given twice"
        self.last_id = session.id
        self.live[session.id] = session
        self.last = session

    def packet_received(self, session: Session, packet: Packet) -> None:
        session.bind(int.from_bytes(packet.payload, "big"))

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        assert self.live.pop(session.id) is session
        self.ended += 1
        self.replaced += reason is CloseReason.REPLACED


class Socket:
    """The host of one TCP session whose peer answers, or one whose network has gone."""

    __slots__ = ("endpoint", "is_dead", "session", "world")

    def __init__(self, world: World, peer: Address, is_dead: bool) -> None:
        self.world = world
        self.is_dead = is_dead
        self.session = Session(world.tcp, self, peer, world.now)

    def write(self, data: bytes) -> int:
        return len(data)

    def write_eof(self) -> None:
        if not self.is_dead:
            self.world.agenda.append(self)

    def set_timer(self, at: float | None) -> None:
        if at is None:
            self.world.timers.pop(self, None)
        else:
            self.world.timers[self] = at

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading

    def close(self) -> None:
        self.world.agenda.append(self)

    abort = close

    def wake(self) -> None:
        self.world.agenda.append(self)

    def carrier(self) -> Carrier:
        return Carrier("tcp")


class World:
    """Two servers with one register, and whatever their sockets have yet to do."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now = 1_000.0
        self.handler = Registrar()
        self.pool: SessionPool[Session] = SessionPool(max_sessions=5_000)
        config = Config(idle_timeout=60, close_timeout=5)
        self.tcp = Endpoint(self.handler, config, is_server=True, sessions=self.pool)
        self.udp = DatagramEndpoint(self.handler, config, is_server=True, sessions=self.pool)
        self.udp.host = self
        self.agenda: deque[Socket] = deque()
        self.timers: dict[Socket, float] = {}
        self.udp_timer: float | None = None
        self.is_woken = False
        self.port = 0
        self.of: dict[int, Session] = {}  # the session that each device opened last
        self.made: WeakSet[Session] = WeakSet()

    # The host of the UDP server.

    def write_to(self, data: bytes, addr: Address) -> None:
        raise AssertionError("nobody sends")

    def set_timer(self, at: float | None) -> None:
        self.udp_timer = at

    def wake(self) -> None:
        self.is_woken = True

    def carrier(self) -> Carrier:
        return Carrier("udp")

    def close(self) -> None:
        raise AssertionError("nobody closes it")

    # What happens.

    def connect(self, device: int) -> None:
        """A device comes, from a port that nobody ever had, and says who it is."""
        self.port += 1
        peer = (f"192.0.2.{device % 200}", self.port)
        hello = HELLOS[device]
        if self.chance.random() < 0.6:
            self.udp.received(hello, peer, self.now)
        else:
            session = Socket(self, peer, self.chance.random() < 0.2).session
            session.opened(self.now)
            session.received(hello, self.now)
        self.of[device] = self.handler.last
        self.made.add(self.handler.last)

    def leave(self, device: int) -> None:
        """Its connection is lost, or closed from here."""
        session = self.of[device]
        if self.chance.random() < 0.5:
            session.close()
        elif session.endpoint is self.tcp:
            session.lost(ConnectionResetError(), self.now)

    def settle(self) -> None:
        """Let what was asked of the hosts happen."""
        if self.is_woken:
            self.is_woken = False
            self.udp.flush(self.now)
        while self.agenda:
            socket = self.agenda.popleft()
            session = socket.session
            if session.is_over:
                continue
            session.flush(self.now)
            if not session.is_open:
                if not socket.is_dead:
                    session.eof(self.now)
                if session.close_reason is not None:
                    session.lost(None, self.now)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and every timer that is due meanwhile fire."""
        self.now += seconds
        for socket in [socket for socket, at in self.timers.items() if at <= self.now]:
            del self.timers[socket]
            socket.session.tick(self.now)
        if self.udp_timer is not None and self.udp_timer <= self.now:
            self.udp.tick(self.now)
        self.settle()

    def refresh_all(self) -> None:
        """Each device that is there says something."""
        for session in self.of.values():
            self.pool.refresh(session.id, self.now)


def test_100_000_reconnects_leave_exactly_the_live_sessions_and_nothing_else() -> None:
    world = World(seed=11)
    chance, pool = world.chance, world.pool
    stale: deque[tuple[int, int]] = deque(maxlen=2_000)  # ids given away, and whose they were
    for device in range(DEVICES):
        world.connect(device)
    objects: list[int] = []
    device = 0
    for n in range(RECONNECTS):
        if chance.random() < 0.9:  # else the one that came last comes again
            device = chance.randrange(DEVICES)
        stale.append((world.of[device].id, device))
        if chance.random() < 0.3:
            world.leave(device)
        world.connect(device)
        if n % 20 == 0:
            world.settle()
        if n % 1_000 == 0:
            world.refresh_all()
            world.pass_time(10)
            # An id is its device's for ever, and where it still finds one it is on its way out.
            for id, owner in stale:
                found = pool.get(id)
                assert found is None or (found.identity == owner and found is not world.of[owner])
                assert found is None or not found.is_open
        if n % 20_000 == 10_000:
            gc.collect()
            assert len(world.made) <= 2 * len(pool) + 200, "sessions that are over live on"
            objects.append(len(gc.get_objects()))
    world.settle()
    world.pass_time(5)  # those whose peers had gone
    assert world.port == DEVICES + RECONNECTS
    assert len(pool) == DEVICES
    for device in range(DEVICES):
        session = world.of[device]
        assert pool.find(device) is pool.get(session.id) is session
        assert (session.identity, session.is_open) == (device, True)
    assert world.handler.live == {session.id: session for session in world.of.values()}
    assert max(session.id for session in pool) == DEVICES + RECONNECTS
    assert world.handler.ended == RECONNECTS
    assert world.handler.replaced > RECONNECTS / 2
    assert max(objects) - min(objects) < 10_000, "memory is flat"
    assert len(world.timers) + len(world.udp._peers) == DEVICES

    world.pass_time(60)
    assert (len(pool), len(world.handler.live), len(world.udp._peers), len(world.timers)) == (0, 0, 0, 0)
    assert (len(pool._by_host), len(pool._by_identity)) == (0, 0), "nothing is left of whom there was"
