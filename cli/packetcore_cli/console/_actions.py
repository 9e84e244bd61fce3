"""What the page can do: send something to a session, and close one. Done on the server's own thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from packetcore import Endpoint, Packet, Session
from packetcore_cli.console._values import reply_told

MAX_WAIT = 60.0
"""Seconds for which a reply is waited for at most."""

PATIENCE = 5.0
"""Seconds that the server's thread may take to do something."""


class Refused(Exception):
    """What was asked for makes no sense; says why."""


class Failed(Exception):
    """It could not be done; says why."""


async def send(endpoint: Endpoint[Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Send a packet, or where another framing is spoken a frame, and wait for the reply if that is wanted: the next
    packet of the same id, or the next frame. The application's handler does not hear of it.

    Raises:
        Refused: a field is missing, or out of its range.
        Failed: there is no such session, it could not be sent, or no reply came.
    """
    payload = _payload(asked)
    wait = asked.get("wait")
    if wait is not None and (not isinstance(wait, (int, float)) or not 0 < wait <= MAX_WAIT):
        raise Refused(f"wait={wait!r} must be above 0 and at most {MAX_WAIT:g} seconds")
    content: Any = payload
    if not endpoint.is_framed:
        try:
            content = Packet(_whole(asked, "id"), payload, type=_whole(asked, "type"), count=_whole(asked, "count"))
        except ValueError as error:
            raise Refused(str(error)) from None
    begun = time.monotonic()

    def go(session: Session[Any], done: Future[Any]) -> None:
        if wait is None:
            session.send(content)
            done.set_result(None)
        elif endpoint.is_framed:
            session.request(content, done.set_result, match=lambda frame: True, timeout=wait)
        else:
            session.request(content, done.set_result, timeout=wait)

    reply = await _done(endpoint, asked, go, PATIENCE + (wait or 0.0))
    if isinstance(reply, TimeoutError):
        raise Failed(f"no reply came within {wait:g} s")
    if isinstance(reply, Exception):
        raise Failed(str(reply) or type(reply).__name__)
    if wait is None:
        return {"sent": True}
    return {"sent": True, "reply": reply_told(reply), "took": round((time.monotonic() - begun) * 1000, 1)}


async def close(endpoint: Endpoint[Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Close a session, as `Session.close` does.

    Raises:
        Refused: no session is named.
        Failed: there is no such session.
    """

    def go(session: Session[Any], done: Future[Any]) -> None:
        session.close()
        done.set_result(None)

    await _done(endpoint, asked, go, PATIENCE)
    return {"closed": True}


async def _done(
    endpoint: Endpoint[Any],
    asked: Mapping[str, Any],
    go: Callable[[Session[Any], Future[Any]], object],
    patience: float,
) -> Any:
    """What comes of doing something with a session on its own thread."""
    id, done = _whole(asked, "session"), Future[Any]()

    def run() -> None:
        try:
            session = endpoint.sessions.get(id)
            if session is None or session.endpoint is not endpoint:
                raise Failed(f"there is no session {id} any more")
            go(session, done)
        except BaseException as error:
            if not done.done():
                done.set_exception(error)

    try:
        endpoint.call_soon(run)
        return await asyncio.wait_for(asyncio.wrap_future(done), patience)
    except asyncio.TimeoutError:
        raise Failed(f"the server has not answered for {patience:g} s") from None
    except Failed:
        raise
    except Exception as error:
        raise Failed(str(error) or type(error).__name__) from None


def _whole(asked: Mapping[str, Any], name: str) -> int:
    value = asked.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Refused(f"{name}={value!r} must be a whole number")
    return value


def _payload(asked: Mapping[str, Any]) -> bytes:
    text, form = asked.get("payload"), asked.get("form")
    if not isinstance(text, str):
        raise Refused(f"payload={text!r} must be text")
    if form == "text":
        return text.encode("utf-8", "surrogatepass")
    if form != "hex":
        raise Refused(f'form={form!r} must be "text" or "hex"')
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise Refused("payload is not hex: two digits for each byte, with or without spaces between them") from None
