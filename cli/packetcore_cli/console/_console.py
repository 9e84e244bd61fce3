"""The web server of a console, on a thread of its own."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from aiohttp import web

from packetcore import Endpoint, ServerBase
from packetcore_cli._sampler import SHARE, Sampler
from packetcore_cli._seen import SORTS
from packetcore_cli._text import address_text
from packetcore_cli.console._actions import Failed, Refused, close, send
from packetcore_cli.console._feed import Feed
from packetcore_cli.console._guard import Guard

DEEPEST = 1000
"""Pages of the list that can be turned to: what lies behind them is found by searching."""

VIEWERS = 8
"""Pages open at a time."""

BODY = 4 << 20
"""Bytes that a request may have."""

LOOK = 0.2
"""Seconds from one look whether there is something new to tell to the next."""

ENDING = 2.0
"""Seconds that the end waits for the thread."""

_FILES = {"page.css": "text/css", "page.js": "text/javascript"}

_HERE = Path(__file__).parent


class Console:
    """A web page that shows what a server does, until `close` or the end of the process. It runs on a thread of its
    own, whatever runtime the server has, and asks that for a few hundred sessions at a time.

    Args:
        server: of any adapter, TCP or UDP, listening; or an `Endpoint`.
        port: where the page is served; 0 takes a free one.
        host: the address to serve it on. Others than loopback let the network see the token, for there is no TLS
            here: put a proxy that speaks it in front.
        names: by which names browsers may ask for it, beside `host`, "localhost" and any address in numbers.
        title: what the page calls the server; its address if not given.
        sampler: what looks at the sessions, where one does already.

    Raises:
        OSError: the address cannot be listened on.
    """

    def __init__(
        self,
        server: ServerBase[Any] | Endpoint[Any],
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        names: Iterable[str] = (),
        title: str | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        self._endpoint: Endpoint[Any] = server if isinstance(server, Endpoint) else server.endpoint
        if title is None:
            title = "" if isinstance(server, Endpoint) else ", ".join(map(address_text, server.addresses))
        self._title = title
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        self._socket = socket.create_server((str(address[0]), port), family=family)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        """Where the page is served, as `(host, port)`."""
        self._guard = Guard(f"packetcore-console-{self.address[1]}", [host, *names])
        self._owns_sampler = sampler is None
        self._sampler = Sampler(self._endpoint) if sampler is None else sampler
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Event | None = None
        self._viewers = 0
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="packetcore-console", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The address to open, with the token. Who has it can send to devices: log it nowhere."""
        host, port = self.address
        if ip_address(host.partition("%")[0]).is_unspecified:  # every address of this machine; this is one
            host = "::1" if ":" in host else "127.0.0.1"
        return f"http://{address_text((host, port))}/?token={self._guard.token}"

    @property
    def is_on_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return ip_address(self.address[0].partition("%")[0]).is_loopback

    def close(self) -> None:
        """Serve the page no more. Waits for its thread, for two seconds at most."""
        if self._owns_sampler:
            self._sampler.close()
        self._started.wait(ENDING)
        if self._loop is not None and self._ending is not None:
            with suppress(RuntimeError):  # it has ended already
                self._loop.call_soon_threadsafe(self._ending.set)
        if self._thread is not threading.current_thread():
            self._thread.join(ENDING)
        self._socket.close()

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(middlewares=[self._guard.check], client_max_size=BODY)
        app.on_response_prepare.append(self._guard.add_headers)
        app.router.add_get("/", self._page)
        app.router.add_get("/favicon.ico", self._nothing)
        app.router.add_get("/events", self._events)
        app.router.add_post("/send", self._answer(send))
        app.router.add_post("/close", self._answer(close))
        for name in _FILES:
            app.router.add_get(f"/{name}", self._file)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.SockSite(runner, self._socket).start()
            self._started.set()
            await self._ending.wait()
        finally:
            self._started.set()
            await runner.cleanup()

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(text=_read("page.html"), content_type="text/html")

    async def _file(self, request: web.Request) -> web.Response:
        name = request.path.removeprefix("/")
        return web.Response(text=_read(name), content_type=_FILES[name])

    async def _nothing(self, request: web.Request) -> web.Response:
        return web.Response(status=204)

    def _answer(
        self, action: Callable[[Endpoint[Any], Mapping[str, Any]], Awaitable[dict[str, Any]]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(request: web.Request) -> web.Response:
            if request.content_type != "application/json":
                raise web.HTTPUnsupportedMediaType(text="Give application/json.\n")
            try:
                asked = await request.json()
            except ValueError:
                raise web.HTTPBadRequest(text="This is no JSON.\n") from None
            if not isinstance(asked, dict):
                raise web.HTTPBadRequest(text="Give an object.\n")
            try:
                return web.json_response(await action(self._endpoint, asked))
            except (Refused, Failed) as error:  # of no use to the browser's own log
                return web.json_response({"error": str(error)})

        return answer

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """The stream of what changes, as server-sent events (HTML, section 9.2), one a second."""
        search, sort, descending, page = _wanted(request)
        if self._viewers >= VIEWERS:
            raise web.HTTPServiceUnavailable(text=f"{VIEWERS} pages are open already.\n")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        self._viewers += 1
        try:
            await response.prepare(request)
            feed = Feed(self._sampler, self._endpoint, self._title)
            while True:
                begun = time.perf_counter()
                text = json.dumps(feed.next(search, sort, descending=descending, page=page))
                took = time.perf_counter() - begun
                await response.write(f"data: {text}\n\n".encode())
                # The same share for all viewers together.
                if await self._waits(feed, took * self._viewers / SHARE):
                    return response
        except ConnectionResetError:
            return response  # the page was closed
        finally:
            self._viewers -= 1

    async def _waits(self, feed: Feed, pause: float) -> bool:
        """Wait until there is something new, and a pause is over. Returns whether the end comes first."""
        assert self._ending is not None
        until = time.monotonic() + pause
        while not self._ending.is_set():
            if feed.has_new and time.monotonic() >= until:
                return False
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._ending.wait(), LOOK)
        return True


def _wanted(request: web.Request) -> tuple[str, str, bool, int]:
    query = request.query
    sort = query.get("sort", "id")
    page = query.get("page", "0")
    if sort not in SORTS or not page.isascii() or not page.isdigit() or len(page) > 6 or int(page) >= DEEPEST:
        raise web.HTTPBadRequest(text=f"sort is one of {', '.join(SORTS)}; page is from 0 to {DEEPEST - 1}.\n")
    return query.get("search", "")[:100], sort, query.get("descending") == "1", int(page)


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
