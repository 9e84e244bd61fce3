"""Log records as lines: for people, or one record a line for machines."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import partial

from packetcore import Session
from packetcore_cli._lines import Line, Lines, Writer, gap_text
from packetcore_cli._terminal import Terminal
from packetcore_cli._text import Content, address_text

Value = str | int | float

_logger = logging.getLogger("packetcore_cli")


def log_event(
    event: str, text: str, level: int = logging.INFO, *, session: Session[Content] | None = None, **fields: Value
) -> None:
    """Log something that happened.

    Args:
        event: its name, for machines.
        text: the same for people.
        level: of `logging`.
        session: whom it is about.
        fields: what else machines are told.
    """
    extra: dict[str, object] = {"event": event, "fields": fields}
    if session is not None:
        extra |= {"session": session.id, "peer": session.peer, "identity": session.identity}
    _logger.log(level, "%s", text, extra=extra)


@contextmanager
def log_to(
    terminal: Terminal,
    writer: Writer,
    form: str | None,
    *,
    verbose: bool = False,
    sessions: bool = False,
    worker: int | None = None,
) -> Iterator[None]:
    """Log to a terminal until the end of the block.

    Args:
        terminal: standard error.
        writer: writes to it.
        form: "logfmt" or "json", one record a line; `None` for lines to be read.
        verbose: whether records of this program at level DEBUG are wanted too.
        sessions: whether the core is to tell of them, since no `Log` does.
        worker: its number, where this process is one of several.
    """
    root, core = logging.getLogger(), logging.getLogger("packetcore")
    line = _line if form is None else partial(_record_line, _FORMS[form])
    handler = _LogHandler(terminal, writer, line if worker is None else partial(_line_of_worker, worker, line))
    before = root.level, core.level, _logger.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    ours = logging.DEBUG if verbose else logging.INFO
    core.setLevel(ours if sessions else logging.WARNING)  # below that it tells of sessions, as `Log` does
    _logger.setLevel(ours)
    try:
        yield
    finally:
        for logger, level in zip((root, core, _logger), before, strict=True):
            logger.setLevel(level)
        root.removeHandler(handler)


class _LogHandler(logging.Handler):
    """Log records as lines; nobody who logs waits for who reads them. That one cannot be written
    changes nothing.

    Args:
        terminal: where to.
        writer: writes them.
        line: makes a line of a record, which is not kept: one with an exception would keep all
            that its frames hold.
    """

    def __init__(self, terminal: Terminal, writer: Writer, line: Callable[[logging.LogRecord], Line]) -> None:
        super().__init__()
        self._line = line
        self._lines = Lines(writer, terminal, gap=self._gap)

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.put(*self._line(record))

    def _gap(self, number: int) -> Line:
        fields = {"event": "dropped", "fields": {"lines": number}}
        warning = {"levelno": logging.WARNING, "levelname": "WARNING", "msg": gap_text(number)}
        return self._line(logging.makeLogRecord(warning | fields))


def _line_of_worker(worker: int, line: Callable[[logging.LogRecord], Line], record: logging.LogRecord) -> Line:
    record.worker = worker
    return line(record)


def _line(record: logging.LogRecord) -> Line:
    """The time, the message, and of an exception its last line."""
    error = _error_of(record)
    message = record.getMessage() + (f": {error}" if error else "")
    style = "red" if record.levelno >= logging.ERROR else "yellow" if record.levelno >= logging.WARNING else ""
    worker = f"worker {record.worker}  " if hasattr(record, "worker") else ""
    return (_CLOCK.formatTime(record, "%H:%M:%S"), "dim"), f"  {worker}", (" ".join(message.splitlines()), style)


def _record_line(form: Callable[[Mapping[str, Value]], str], record: logging.LogRecord) -> Line:
    """Fields: `time`, `level`, `event` or else `message`, whom it is about."""
    time = datetime.fromtimestamp(record.created, timezone.utc)
    fields: dict[str, Value] = {
        "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
    }
    about = vars(record)
    if "event" in about:
        fields["event"] = str(about["event"])
    else:
        fields["message"] = record.getMessage()
    if isinstance(worker := about.get("worker"), int):
        fields["worker"] = worker
    if isinstance(session := about.get("session"), int):
        fields["session"] = session
    if isinstance(peer := about.get("peer"), tuple):
        fields["peer"] = address_text(peer)
    if (identity := about.get("identity")) is not None:
        fields["identity"] = identity if isinstance(identity, int) else str(identity)
    fields |= about.get("fields", {})
    if error := _error_of(record):
        fields["error"] = error
    return (form(fields),)


_CLOCK = logging.Formatter()


def _error_of(record: logging.LogRecord) -> str:
    error = record.exc_info[1] if record.exc_info else None
    return "" if error is None else f"{type(error).__name__}: {error}"


def _logfmt(fields: Mapping[str, Value]) -> str:
    return " ".join(f"{name}={_logfmt_value(value)}" for name, value in fields.items())


def _logfmt_value(value: Value) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if re.fullmatch(r"[!-~]+", text) and not re.search(r'["=\\]', text) else json.dumps(text)


_FORMS: dict[str, Callable[[Mapping[str, Value]], str]] = {"logfmt": _logfmt, "json": json.dumps}

LOG_FORMS = tuple(_FORMS)
"""What machines can read; the first is what `--log` without a value means."""
