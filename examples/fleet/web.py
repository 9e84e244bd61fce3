"""The web service: a page that shows who is online, and sends commands. It is one more worker of the cluster,
without devices of its own.

    python -m fleet.web nats://127.0.0.1:4222 --port 8080

    GET  /fleet.json                                          devices, gateways, and what happened
    POST /command    {"device": "meter 7", "text": "status"}  the device's reply
    POST /broadcast  {"group": "meters", "text": "hello"}     to all of a group

It listens on 127.0.0.1 alone and knows no users. Other pages that the same browser has open cannot give commands:
a POST has to be JSON, which they may not send without leave, and Host has to be this machine.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from packetcore import Packet, SessionClosed
from packetcore_cluster import (
    BrokerAway,
    BrokerLost,
    BrokerReached,
    Cluster,
    ClusterEvent,
    IdentityNotConnected,
    NotDelivered,
    SlowConsumer,
    WorkerLeft,
    WorkerLost,
    WorkerSeen,
)

from .gateway import LEASE
from .lifetime import run, told_to_end
from .packets import IDENTITY, MAX_TEXT, NAME, Kind

PAGE = Path(__file__).parent / "page"

PATIENCE = 3.0
"""Seconds that a device has for its reply."""

STATUS: dict[type[Exception], int] = {
    IdentityNotConnected: 404,
    SlowConsumer: 429,
    SessionClosed: 502,  # it went before it had replied
    NotDelivered: 502,
    BrokerAway: 503,
    TimeoutError: 504,
}
"""What HTTP says of what can go wrong on the way to a device."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Watcher:
    """What is known of the workers: the directory tells of their sessions, events of themselves."""

    def __init__(self) -> None:
        self.is_alive: dict[str, bool] = {}
        """By worker, those of before included."""
        self.news: deque[tuple[float, str]] = deque(maxlen=20)

    def heard(self, event: ClusterEvent) -> None:
        """The cluster says what happened."""
        match event:
            case WorkerSeen(worker):
                self._forget_namesakes(worker)
                self.is_alive[worker] = True
                self._say(f"{name_of(worker)} is here")
            case WorkerLost(worker) | WorkerLeft(worker):
                self.is_alive[worker] = False
                self._say(f"{name_of(worker)} is gone")
            case BrokerReached(identities):
                self._say(f"the broker is here; the directory has {identities} devices")
            case BrokerLost():
                self._say("the broker is gone; devices stay connected")

    def _forget_namesakes(self, worker: str) -> None:
        for other in [other for other, alive in self.is_alive.items() if not alive]:
            if name_of(other) == name_of(worker):
                del self.is_alive[other]

    def _say(self, text: str) -> None:
        self.news.appendleft((time.time(), text))


def name_of(worker: str) -> str:
    """What a worker was called; the cluster adds the process id, and something random."""
    return worker.rsplit("-", 2)[0]


class Service:
    """Answers the page.

    Args:
        cluster: reaches the devices.
        watcher: knows the workers.
    """

    def __init__(self, cluster: Cluster, watcher: Watcher) -> None:
        self._cluster = cluster
        self._watcher = watcher

    def app(self) -> web.Application:
        """Where it answers."""
        app = web.Application(middlewares=[guarded], client_max_size=4096)
        app.router.add_get("/", page)
        app.router.add_static("/page", PAGE)
        app.router.add_get("/fleet.json", self.fleet)
        app.router.add_post("/command", self.command)
        app.router.add_post("/broadcast", self.broadcast)
        return app

    async def fleet(self, request: web.Request) -> web.Response:
        """Who is online, since when and where."""
        places = [place async for place in self._cluster.where()]
        held = Counter(place.worker for place in places)
        workers = {worker: alive for worker, alive in self._watcher.is_alive.items() if worker != self._cluster.worker}
        return web.json_response(
            {
                "broker": self._cluster.is_connected,
                "workers": [
                    {"name": name_of(worker), "pid": worker.rsplit("-", 2)[1], "alive": alive, "devices": held[worker]}
                    for worker, alive in sorted(workers.items())
                ],
                "devices": [
                    {"id": str(place.identity), "at": name_of(place.worker), "since": place.since.timestamp()}
                    for place in places
                ],
                "news": [{"at": at, "text": text} for at, text in self._watcher.news],
            }
        )

    async def command(self, request: web.Request) -> web.Response:
        """Have a device do something, wherever it is connected."""
        device, text = await asked_for(request, "device")
        if IDENTITY.fullmatch(device) is None:
            raise Refused(404, f"no device is called {device!r}")
        begun = time.perf_counter()
        try:
            reply = await self._cluster.request(device, Packet(Kind.COMMAND, text), timeout=PATIENCE)
        except tuple(STATUS) as error:
            raise Refused(next(code for kind, code in STATUS.items() if isinstance(error, kind)), str(error)) from None
        seconds = time.perf_counter() - begun
        return web.json_response({"reply": reply.payload.decode(errors="replace"), "seconds": seconds})

    async def broadcast(self, request: web.Request) -> web.Response:
        """Tell a group something. Nobody says who has heard it."""
        group, text = await asked_for(request, "group")
        try:
            await self._cluster.broadcast(Packet(Kind.NOTICE, text), group=group)
        except BrokerAway as error:
            raise Refused(503, str(error)) from None
        return web.json_response({"sent": True})


async def page(request: web.Request) -> web.FileResponse:
    """The page itself."""
    return web.FileResponse(PAGE / "index.html")


async def asked_for(request: web.Request, whom: str) -> tuple[str, bytes]:
    """What a POST says: whom it is for, and the text.

    Raises:
        Refused: something else.
    """
    try:
        said: Any = await request.json()
        name, text = said[whom], said["text"]
        data = text.encode()
    except (ValueError, LookupError, TypeError, AttributeError):
        name = data = None
    if not (isinstance(name, str) and isinstance(data, bytes)):
        raise Refused(400, f'say {{"{whom}": "...", "text": "..."}}')
    if not 0 < len(name) <= 100 or not 0 < len(data) <= MAX_TEXT:
        raise Refused(400, f"{whom} must have 1 to 100 characters, and text 1 to {MAX_TEXT} bytes")
    return name, data


class Refused(Exception):
    """What was asked for is not done.

    Args:
        status: of HTTP.
        why: in words.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@web.middleware
async def guarded(request: web.Request, handler: Respond) -> web.StreamResponse:
    """Answer this page and no other, and say what was wrong."""
    try:
        if request.host.split(":")[0] not in ("127.0.0.1", "localhost"):
            raise Refused(421, f"this is not {request.host!r}")
        if request.method == "POST" and request.content_type != "application/json":
            raise Refused(415, "say it in application/json")
        response = await handler(request)
    except Refused as error:
        response = web.json_response({"error": str(error)}, status=error.status)
    except web.HTTPException as error:  # no such page, too long and so on
        response = web.json_response({"error": error.reason}, status=error.status)
    response.headers.update(HEADERS)
    return response


async def main(url: str, port: int) -> None:
    """Serve until told to end."""
    watcher = Watcher()
    async with Cluster(url, NAME, worker="web", lease=LEASE, on_event=watcher.heard) as cluster:
        runner = web.AppRunner(Service(cluster, watcher).app(), access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            print(runner.addresses[0][1], flush=True)
            await told_to_end()
        finally:
            await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m fleet.web", description="Shows the fleet, and commands it.")
    parser.add_argument("url", help="of the broker")
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one, and prints it")
    options = parser.parse_args()
    run(main(options.url, options.port))
