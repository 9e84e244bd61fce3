"""gevent's own `SSLContext` over memory, where its callbacks (server names) expect a socket."""

from __future__ import annotations

import ssl

import gevent.ssl


class _OverMemory(ssl.SSLObject):
    def _sslsock(self) -> _OverMemory:
        """What a callback that gevent has wrapped asks its argument for, to hand that on."""
        return self


def over_memory(context: ssl.SSLContext) -> ssl.SSLContext:
    """Make a context fit for TLS without sockets; one of the standard library is."""
    if isinstance(context, gevent.ssl.SSLContext) and context.sslobject_class is ssl.SSLObject:
        context.sslobject_class = _OverMemory
    return context
