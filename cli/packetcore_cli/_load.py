"""Packets to a server by many connections, and how long each waits for its reply: the clients of `packetcore bench`.

A reply is whatever packet comes next on a connection: servers answer in order, over one connection. What has gone
wrong is counted here; what that means is up to the command.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from packetcore import Malformed
from packetcore_cli._failure import Failure, reason_of
from packetcore_cli._measured import Histogram, Load, Measured
from packetcore_cli._text import address_text

CONNECT_TIMEOUT = 10.0
"""Seconds that a connection may take, TLS included."""

AT_ONCE = 100
"""Connections that are being opened at a time: as many as the shortest queues of servers hold."""

LOOK = 0.1
"""Seconds between two looks at whether the time is over, and whether replies still come."""

SPIN = 0.002
"""With a rate: seconds before a packet is due from which on the client does not sleep; a loop's timers are some
milliseconds late."""

BURST = 500
"""With a rate: packets sent at a time at most where many are due, before it is seen what has come."""

MOST_OUTSTANDING = 100_000
"""With a rate: packets that wait for a reply at most; others wait to be sent, and that counts as part of their time."""


class _Client(asyncio.Protocol, asyncio.DatagramProtocol):
    """One connection, or one socket of UDP."""

    def __init__(self, run: Run) -> None:
        self.waiting: deque[tuple[float, int]] = deque()
        """When packets were sent that wait for a reply, the oldest first, and how many at a time."""
        self._run = run
        self.why_lost: str | None = None
        """Why the connection is no more."""
        self._decoder = run.load.new_decoder()
        self._write: Callable[[bytes], None] = lambda data: None
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._write = transport.sendto if self._run.load.udp else transport.write

    def send(self, number: int, at: float) -> None:
        """Send so many packets, of which the time counts from `at`."""
        self._run.measured.sent += number
        self.waiting.append((at, number))
        self._write(self._run.load.frame * number)

    def data_received(self, data: bytes) -> None:
        events = self._decoder.feed(data)
        malformed = sum(isinstance(event, Malformed) for event in events)
        self._run.came(self, len(data), len(events) - malformed, malformed)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.data_received(data)

    def error_received(self, exc: Exception) -> None:
        self._run.ended(self, reason_of(exc))

    def connection_lost(self, exc: Exception | None) -> None:
        self.why_lost = "closed by the server" if exc is None else reason_of(exc)
        self._run.ended(self, self.why_lost)


class Run:
    """One load, on the running event loop.

    Args:
        load: what to do.
        histogram: where latencies go.
        looked: called from time to time while it runs, for a progress bar.
    """

    def __init__(self, load: Load, histogram: Histogram, looked: Callable[[Run], object] = lambda run: None) -> None:
        self.load = load
        self.measured = Measured(histogram)
        self.began = 0.0
        """When the first packet was sent, by `time.perf_counter`."""
        self._looked = looked
        self._address: tuple[str, int] = load.host, load.port
        self._clients: list[_Client] = []
        self._is_sending = False
        self._is_over = False
        self._last_reply = 0.0
        self._turn = 0
        self._due = 0  # with a rate: the number of the packet that is due next
        self._reopening: set[asyncio.Future[None]] = set()
        self._changed = asyncio.Event()

    def interrupt(self) -> None:
        """End it now."""
        self.measured.is_interrupted = True
        self._is_sending = False
        self._is_over = True
        self._changed.set()

    async def run(self) -> Measured:
        """Connect, load the server, and wait for the last replies.

        Raises:
            Failure: a connection cannot be made.
        """
        try:
            await self._connect()
            for client in list(self._clients):
                if client.why_lost is not None:
                    self.ended(client, client.why_lost)
            with _collecting_no_garbage():
                self.began = self._last_reply = time.perf_counter()
                self._is_sending = True
                if self._clients and not self._is_over:
                    self._begin()
                else:
                    self._finish()
                while not self._is_over:
                    with suppress(asyncio.TimeoutError, TimeoutError):
                        await asyncio.wait_for(self._changed.wait(), LOOK)
                    self._look()
                self.measured.seconds = self._last_reply - self.began
        finally:
            self._is_over = True
            for client in self._clients:
                client.transport.abort()
            await _cancelled(self._reopening)
        return self.measured

    def came(self, client: _Client, size: int, replies: int, malformed: int) -> None:
        """Something came by a connection."""
        if self._is_over or not self.began:
            return
        measured, now = self.measured, time.perf_counter()
        measured.bytes_in += size
        measured.malformed += malformed
        if not replies:
            return
        self._last_reply = now
        due = replies
        while due and client.waiting:
            at, number = client.waiting[0]
            taken = min(number, due)
            measured.histogram.record_value(max(1, int((now - at) * 1e9)), taken)
            due -= taken
            if taken == number:
                client.waiting.popleft()
            else:
                client.waiting[0] = at, number - taken
        measured.answered += replies - due
        measured.unexpected += due
        if self._is_sending and self.load.rate is None:
            self._send(client, replies - due, now)
        elif not self._is_sending and not measured.outstanding:
            self._finish()

    def ended(self, client: _Client, why: str) -> None:
        """A connection is no more, or a datagram was refused."""
        if self._is_over or client not in self._clients:
            return
        self._clients.remove(client)
        client.transport.abort()
        self.measured.ended.append(why)
        if not self._clients and self.began:
            self._finish()

    async def _connect(self) -> None:
        load = self.load
        places = asyncio.Semaphore(AT_ONCE)

        async def one() -> None:
            async with places:
                if not self._is_over:
                    self._clients.append(await self._new_client())

        async def all_of_them() -> None:
            await one()  # which finds out where a name leads
            self._address = self._clients[0].transport.get_extra_info("peername")[:2]
            others = [asyncio.ensure_future(one()) for _ in range(load.connections - 1)]
            try:
                await asyncio.gather(*others)
            finally:
                await _cancelled(others)

        connecting: asyncio.Future[Any] = asyncio.ensure_future(all_of_them())
        interrupted: asyncio.Future[Any] = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait([connecting, interrupted], return_when=asyncio.FIRST_COMPLETED)
            if connecting.done():
                await connecting
        except (OSError, UnicodeError, asyncio.TimeoutError, TimeoutError) as error:
            is_late = isinstance(error, (asyncio.TimeoutError, TimeoutError)) and not getattr(error, "errno", None)
            why = f"it takes longer than {CONNECT_TIMEOUT:g} s" if is_late else reason_of(error)
            where = address_text((load.host, load.port))
            raise Failure(f"cannot connect to {where}: {why}") from None
        finally:
            await _cancelled([connecting, interrupted])

    async def _new_client(self) -> _Client:
        load, loop = self.load, asyncio.get_running_loop()
        making: Any
        if load.udp:
            making = loop.create_datagram_endpoint(lambda: _Client(self), remote_addr=self._address)
        else:
            tls: dict[str, Any] = {} if load.tls is None else {"ssl": load.tls, "server_hostname": load.host}
            making = loop.create_connection(lambda: _Client(self), *self._address, **tls)
        _, client = await asyncio.wait_for(making, CONNECT_TIMEOUT)
        assert isinstance(client, _Client)
        return client

    def _begin(self) -> None:
        if self.load.rate is not None:
            self._send_what_is_due()
            return
        for client in list(self._clients):
            self._send(client, self.load.in_flight, self.began)

    def _send(self, client: _Client, number: int, at: float) -> None:
        if self.load.count is not None:
            number = min(number, self.load.count - self.measured.sent)
        if number > 0:
            client.send(number, at)
        if self.measured.sent == self.load.count:
            self._stop_sending()

    def _send_what_is_due(self) -> None:
        """With a rate: send all packets that are due, one connection after another, and come back for the next."""
        rate, now = self.load.rate, time.perf_counter()
        assert rate is not None
        for _ in range(BURST):
            due = self.began + self._due / rate
            if not self._is_sending or due > now or self.measured.outstanding >= MOST_OUTSTANDING:
                break
            client = self._next_client()
            if client is None:
                break
            self._send(client, 1, due)
            self._due += 1
        if self._is_sending:
            loop, wait = asyncio.get_running_loop(), self.began + self._due / rate - time.perf_counter()
            if wait > SPIN:
                loop.call_later(wait - SPIN, self._send_what_is_due)
            else:
                loop.call_soon(self._send_what_is_due)

    def _next_client(self) -> _Client | None:
        """Whose turn it is; over UDP one that waits for nothing, as it could not tell which reply is whose."""
        for _ in range(len(self._clients)):
            self._turn = (self._turn + 1) % len(self._clients)
            if not (self.load.udp and self._clients[self._turn].waiting):
                return self._clients[self._turn]
        return None

    def _look(self) -> None:
        now = time.perf_counter()
        self._looked(self)
        if self._is_sending and now - self.began >= self.load.seconds:
            if self.load.rate is not None:
                self.measured.left_out = max(0, int((now - self.began) * self.load.rate) - self._due)
            self._stop_sending()
        if self.load.udp:
            self._give_up_lost(now)
        elif self.measured.outstanding and now - self._last_reply > self.load.timeout:
            self._finish()

    def _give_up_lost(self, now: float) -> None:
        """A reply that comes late must not be taken for the next one's: what goes on has another socket."""
        for client in [each for each in self._clients if each.waiting and now - each.waiting[0][0] > self.load.timeout]:
            self._clients.remove(client)
            client.transport.abort()
            self.measured.lost += 1
            if self._is_sending:
                self._reopening.add(asyncio.ensure_future(self._go_on()))
        if not self._is_sending and not any(client.waiting for client in self._clients):
            self._finish()

    async def _go_on(self) -> None:
        client = await self._new_client()
        if self._is_over or not self._is_sending:
            client.transport.abort()
            return
        self._clients.append(client)
        if self.load.rate is None:
            self._send(client, 1, time.perf_counter())

    def _stop_sending(self) -> None:
        self._is_sending = False
        if not self.measured.outstanding:
            self._finish()

    def _finish(self) -> None:
        self._is_sending = False
        self._is_over = True
        self._changed.set()


async def _cancelled(tasks: Iterable[asyncio.Future[Any]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def _collecting_no_garbage() -> Iterator[None]:
    """So that no packet waits for it."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
