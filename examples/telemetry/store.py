"""Where readings stay: SQLite, or PostgreSQL. The same statements serve both.

A reading is known by when it came, its id and its channel, so that to store it twice stores it once: what may have
been stored before a connection broke is stored again without harm.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

SCHEMA = """
CREATE TABLE IF NOT EXISTS readings (
    time DOUBLE PRECISION NOT NULL,
    id BIGINT NOT NULL,
    channel INTEGER NOT NULL,
    value DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (time, id, channel)
)
"""
INSERT = "INSERT INTO readings (time, id, channel, value) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
LAST = "SELECT id FROM readings ORDER BY time DESC, id DESC LIMIT 1"
SINCE = "SELECT time, id, channel, value FROM readings WHERE time >= ? ORDER BY time, id"


class Row(NamedTuple):
    """A reading that is stored, or to be."""

    time: float
    """When it came: seconds since 1970."""
    id: int
    channel: int
    value: float


class StoreError(Exception):
    """The database does not do what it is asked. What it was to store, it has not, or not for certain."""


class Store:
    """A database, connected to when it is first needed, and again after an error. One thread at a time.

    Args:
        name: of the database, for errors.
        connect: gives a connection, by DB-API 2.0 (PEP 249).
        error: what that raises.
        mark: stands for a value in its statements.
        create: whether to make the table where it is not there.
    """

    def __init__(self, name: str, connect: Callable[[], Any], error: type[Exception], mark: str, create: bool) -> None:
        self._name = name
        self._connect = connect
        self._error = error
        self._mark = mark
        self._create = create
        self._connection: Any = None

    def append(self, rows: Sequence[Row]) -> None:
        """Store all of these, or none. When it returns they are on the disk.

        Raises:
            StoreError: see there; so all others here.
        """
        self._run(lambda cursor: cursor.executemany(INSERT.replace("?", self._mark), rows))

    def last_id(self) -> int | None:
        """The id of the reading that came last; `None` if there is none."""
        found = self._run(lambda cursor: cursor.execute(LAST) and cursor.fetchone())
        return None if found is None else int(found[0])

    def since(self, time: float) -> list[Row]:
        """What came since then, the oldest first."""
        found = self._run(lambda cursor: cursor.execute(SINCE.replace("?", self._mark), [time]) and cursor.fetchall())
        return [Row(*row) for row in found]

    def close(self) -> None:
        """Let the database go."""
        if self._connection is not None:
            with suppress(self._error):
                self._connection.close()
            self._connection = None

    def _run(self, ask: Callable[[Any], Any]) -> Any:
        try:
            if self._connection is None:
                self._connection = self._connect()
                if self._create:
                    self._connection.cursor().execute(SCHEMA)
            result = ask(self._connection.cursor())
            self._connection.commit()
        except self._error as error:
            self.close()
            raise StoreError(f"{self._name}: {' '.join(str(error).split())}") from error
        return result


def open_store(where: str, *, create: bool = True) -> Store:
    """The store that a file of SQLite's is, or the PostgreSQL at a URL.

    Args:
        where: the one or the other.
        create: whether to make the file, or the table, where it is not there.

    Raises:
        ImportError: that needs psycopg, which is not installed.
        StoreError: it cannot be opened.
    """
    is_postgresql = where.startswith(("postgresql://", "postgres://"))
    store = _postgresql(where, create) if is_postgresql else _sqlite(where, create)
    store.last_id()  # finds out now
    return store


def _sqlite(path: str, create: bool) -> Store:
    def connect() -> sqlite3.Connection:
        mode = "rwc" if create else "rw"
        url = f"{Path(path).absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(url, uri=True, timeout=5.0, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")  # who reads holds nobody up
        return connection

    return Store(path, connect, sqlite3.Error, "?", create)


def _postgresql(url: str, create: bool) -> Store:
    import psycopg

    def connect() -> psycopg.Connection:  # neither a host that is gone nor a lock may hold a thread for ever
        return psycopg.connect(url, connect_timeout=5, options="-c statement_timeout=10s")

    return Store("PostgreSQL", connect, psycopg.Error, "%s", create)
