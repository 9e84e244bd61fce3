"""A pool of sessions: a connection is inserted, found, refreshed and counted, then expires.

Every server has such a pool, `server.sessions`, and keeps it by itself. This one stands
on its own: it holds any object, and the times are whatever the caller says, so a minute
passes here in no time.
"""

import asyncio

from packetcore import Handler, Session, SessionPool
from packetcore_asyncio import connect, serve

TIMEOUT = 60.0


class Register(Handler):
    """Keeps every accepted connection in a pool."""

    def __init__(self, now: float) -> None:
        self.pool: SessionPool[Session] = SessionPool(TIMEOUT)
        self.now = now
        self.accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connected(self, session: Session) -> None:
        self.accepted.set_result(self.pool.add(session, self.now))


async def main() -> None:
    now = 1000.0
    register = Register(now)
    pool = register.pool
    async with await serve(register) as server, await connect(*server.address):
        id = await register.accepted
        print(f"inserted with id {id}; the pool counts {len(pool)}")

        pool.bind(id, "meter 7")
        session = pool.find("meter 7")
        print(f"found by its id: {pool.get(id) is not None}; by its identity: {session is not None}")

        now += 40
        print(f"{now:g} s: refreshed: {pool.refresh(id, now)}; expires at {pool.next_deadline():g} s")

        now += 40
        print(f"{now:g} s: {len(pool.expire(now))} expired; the pool counts {len(pool)}")

        now += 40
        for expired in pool.expire(now):
            print(f"{now:g} s: the session with {expired.peer[0]} expired; the pool counts {len(pool)}")
            expired.close()
        print(f"refreshed once it has gone: {pool.refresh(id, now)}")


if __name__ == "__main__":
    asyncio.run(main())
