"""Whose thread this is, and what one waits with: all that the core asks of threads, and it starts none.

Outside an input nothing tells a session that another thread calls it, and without a lock what
that thread sends may wait until the next event, or for ever. So it asks.
"""

from _thread import allocate_lock, get_ident

__all__ = ["allocate_lock", "get_ident"]
