"""The page for people, and the metrics for Prometheus: FastAPI, on the event loop of the gateway itself.

It is for this machine alone. Another page that a browser here has open can neither read it (`TrustedHostMiddleware`:
a name of that page's, made to mean 127.0.0.1, is refused) nor send a command (`_of_this_page`).
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from pydantic import BaseModel, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware

from packetcore import SessionClosed
from packetcore.prometheus import PacketcoreCollector
from packetcore_asyncio import Server

from .commands import Offline, command
from .gateway import Gateway

HTML = Path(__file__).with_name("page.html")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"


class Command(BaseModel):
    """What the page sends."""

    text: str = Field(min_length=1, max_length=1000)


def new_page(gateway: Gateway, server: Server) -> FastAPI:
    """The application.

    Args:
        gateway: knows the devices.
        server: has their sessions.
    """
    app = FastAPI(title="Gateway", docs_url=None, redoc_url=None)  # those pages load scripts from elsewhere
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    registry = _new_registry(gateway, server)

    @app.get("/")
    async def page() -> FileResponse:
        return FileResponse(HTML, headers={"Content-Security-Policy": POLICY})

    @app.get("/devices")
    async def devices() -> dict[str, Any]:
        known = sorted(gateway.devices.values(), key=lambda device: device.name)
        return {
            "now": time.time(),
            "devices": [asdict(device) | {"why": device.why and device.why.name} for device in known],
        }

    @app.post("/devices/{name:path}/command", dependencies=[Depends(_of_this_page)])
    async def send(name: str, told: Command) -> dict[str, str]:
        try:
            return {"reply": await command(server.sessions, name, told.text)}
        except Offline:
            raise HTTPException(409, f"{name} is offline") from None
        except SessionClosed:
            raise HTTPException(502, f"{name} went away before it answered") from None
        except TimeoutError:
            raise HTTPException(504, f"{name} did not answer in time") from None

    @app.get("/metrics")
    async def metrics() -> Response:  # on the loop: what is read belongs to it
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return app


def _of_this_page(request: Request) -> None:
    """Refuse what a script of another page sends: browsers name that page in `Origin`."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers["host"]:
        raise HTTPException(403, f"commands from {origin} are refused")


def _new_registry(gateway: Gateway, server: Server) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(PacketcoreCollector(endpoints={"gateway": lambda: server.stats}))
    devices = Gauge("gateway_devices", "Devices that have been here.", ["state"], registry=registry)
    devices.labels("online").set_function(lambda: gateway.online)
    devices.labels("offline").set_function(lambda: len(gateway.devices) - gateway.online)
    return registry
