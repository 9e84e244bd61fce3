"""asyncio on a thread of its own, for tools that are not asynchronous."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from packetcore import TLS, Address, Config, Handler, Message, Packet, Session, StreamEndpoint
from packetcore_asyncio._client import connect
from packetcore_asyncio._server import Server, serve
from packetcore_asyncio._stream import Stream

P = ParamSpec("P")
T = TypeVar("T")


class AsyncioDriver:
    """Runs an event loop, uvloop's where it is installed. See `packetcore.Driver`."""

    def __init__(self, new_event_loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
        self._loop = (new_event_loop or _fastest_event_loop)()
        self._thread = threading.Thread(target=self._loop.run_forever, name="packetcore-asyncio", daemon=True)
        self._thread.start()

    def start_server(
        self,
        handler: Handler,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        config: Config | None = None,
        tls: TLS | None = None,
    ) -> AsyncioDriverServer:
        context = None if tls is None else _context(tls, ssl.Purpose.CLIENT_AUTH)
        return AsyncioDriverServer(self, self.run(serve(handler, host, port, config=config, ssl=context)))

    def connect(
        self, host: str, port: int, handler: Handler, *, config: Config | None = None, tls: TLS | None = None
    ) -> Session:
        context = None if tls is None else _context(tls, ssl.Purpose.SERVER_AUTH)
        name = None if tls is None else tls.server_name
        return self.run(connect(host, port, handler, config=config, ssl=context, server_hostname=name))

    def start_stream_echo(
        self, host: str = "127.0.0.1", port: int = 0, *, config: Config | None = None, tls: TLS | None = None
    ) -> AsyncioDriverServer:
        context = None if tls is None else _context(tls, ssl.Purpose.CLIENT_AUTH)
        return AsyncioDriverServer(self, self.run(serve(_echo, host, port, config=config, ssl=context)))

    def connect_stream(
        self, host: str, port: int, *, config: Config | None = None, tls: TLS | None = None
    ) -> AsyncioDriverStream:
        context = None if tls is None else _context(tls, ssl.Purpose.SERVER_AUTH)
        name = None if tls is None else tls.server_name
        stream = self.run(connect(host, port, config=config, ssl=context, server_hostname=name))
        return AsyncioDriverStream(self, stream)

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        async def called() -> T:
            return function(*args, **kwargs)

        return self.run(called())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and give what it returns or raises. A caller who is
        interrupted meanwhile cancels it."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def capabilities(self) -> frozenset[str]:
        is_uvloop = type(self._loop).__module__.startswith("uvloop")
        return frozenset({"tcp", "tls", "uvloop"} if is_uvloop else {"tcp", "tls"})

    def stop(self) -> None:
        if self._loop.is_closed():
            return
        self.run(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class AsyncioDriverServer:
    """A server on the driver's loop. See `packetcore.DriverServer`."""

    def __init__(self, driver: AsyncioDriver, server: Server) -> None:
        self._driver = driver
        self._server = server

    @property
    def address(self) -> Address:
        return self._server.address

    @property
    def endpoint(self) -> StreamEndpoint:
        return self._server.endpoint

    def close(self, grace: float) -> None:
        self._driver.run(self._server.close(grace))


class AsyncioDriverStream:
    """A stream on the driver's loop. See `packetcore.DriverStream`."""

    def __init__(self, driver: AsyncioDriver, stream: Stream) -> None:
        self._driver = driver
        self._stream = stream

    @property
    def session(self) -> Session:
        return self._stream.session

    def send(self, packet: Packet) -> None:
        self._driver.run(self._stream.send(packet))

    def recv(self, timeout: float) -> Packet | Message:
        try:
            return self._driver.run(asyncio.wait_for(self._stream.recv(), timeout))
        except asyncio.TimeoutError:
            raise TimeoutError(f"nothing received within {timeout} s") from None

    def close(self) -> None:
        self._driver.run(self._stream.close())


async def _echo(stream: Stream) -> None:
    async for item in stream:
        if isinstance(item, Packet):
            await stream.send(item)
        else:
            await stream.send_message(item.payload, id=item.id, type=item.type)


def _fastest_event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _context(tls: TLS, purpose: ssl.Purpose) -> ssl.SSLContext:
    context = ssl.create_default_context(purpose, cafile=tls.authority)
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    if tls.authority is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    if tls.alpn:
        context.set_alpn_protocols(list(tls.alpn))
    return context


async def _cancel_others() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
