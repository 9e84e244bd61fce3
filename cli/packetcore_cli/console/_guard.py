"""Who may use a console: who has its token, from a page of the console itself, and nobody else's page."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import web

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "packetcore",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""What every answer says: run nothing but our files, in nobody's frame, keep nothing."""

Next = Callable[[web.Request], Awaitable[web.StreamResponse]]

NO_TOKEN = "Open the address that was printed when the console began: its token is missing here, or another's.\n"


class Guard:
    """Lets requests through, or answers them with 403.

    A browser brings the token once, in the address, and has a cookie from then on; a script may bring it with every
    request, as `Authorization: Bearer`. What changes something has to come from the console's own page.

    Args:
        cookie: the name of its cookie, of which each console of a host has one: cookies know no ports.
        names: by which names the console may be called, beside "localhost" and any address in numbers. Another
            name could be that of a stranger's site, which has had it point here (DNS rebinding).
    """

    def __init__(self, cookie: str, names: Iterable[str] = ()) -> None:
        self.token = secrets.token_urlsafe(32)
        """What the address is printed with."""
        self._name = cookie
        self._cookie = secrets.token_urlsafe(32)
        self._names = {"localhost", *(name.lower().rstrip(".") for name in names)}

    @web.middleware
    async def check(self, request: web.Request, handler: Next) -> web.StreamResponse:
        """Answer a request, or have it answered."""
        if not self._is_called_by_name(request):
            raise web.HTTPForbidden(text="This host name is not one of the console's.\n")
        if request.path == "/" and request.method == "GET" and (given := request.query.get("token")) is not None:
            if not _same(given, self.token):
                raise web.HTTPForbidden(text=NO_TOKEN)
            seen = web.HTTPSeeOther("/")  # so that the address bar shows no token any more
            seen.set_cookie(self._name, self._cookie, httponly=True, samesite="Strict", path="/")
            raise seen
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        by_header = kind.lower() == "bearer" and _same(given, self.token)
        if not (by_header or _same(request.cookies.get(self._name, ""), self._cookie)):
            raise web.HTTPForbidden(text=NO_TOKEN)
        if request.method not in ("GET", "HEAD") and not self._is_own(request, by_header=by_header):
            raise web.HTTPForbidden(text="This was not asked for by the console's own page.\n")
        return await handler(request)

    async def add_headers(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Give an answer its headers."""
        response.headers.update(HEADERS)

    def _is_called_by_name(self, request: web.Request) -> bool:
        hosts = request.headers.getall("Host", [])
        try:
            name = urlsplit(f"//{hosts[0]}").hostname if len(hosts) == 1 else None
        except ValueError:
            return False
        if name is None:
            return False
        try:
            ip_address(name.partition("%")[0])
        except ValueError:
            return name.rstrip(".") in self._names
        return True

    def _is_own(self, request: web.Request, *, by_header: bool) -> bool:
        """Whether the page is ours that sends this; where there is a token in a header, no page at all may."""
        if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            return False
        origin = request.headers.get("Origin")
        if origin is None:
            return by_header
        scheme, _, host = origin.partition("://")
        return scheme in ("http", "https") and host.lower() == request.headers["Host"].lower()


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())
