"""What `packetcore serve` logs: lines for people, or one record a line for machines."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone

from packetcore import CloseReason, Handler, Malformed, Session
from packetcore_cli._failure import reason_of
from packetcore_cli._terminal import NobodyReads, Terminal
from packetcore_cli._text import address_text, malformed_text

NOTES_LOGGED = 10
"""Malformed runs and errors of one session that are logged: a hostile peer sends millions."""

Value = str | int | float

_logger = logging.getLogger("packetcore_cli")


class Log(Handler):
    """Logs who comes, who goes, what is malformed and what the system reports."""

    def __init__(self) -> None:
        self._notes: Counter[int] = Counter()

    def connected(self, session: Session) -> None:
        log_event("opened", f"session {session.id} from {address_text(session.peer)}", session=session)

    def malformed(self, session: Session, malformed: Malformed) -> None:
        self._note(
            session,
            "malformed",
            lambda: malformed_text(malformed),
            reason=malformed.reason.name,
            size=malformed.size,
            sample=malformed.sample.hex(),
        )

    def error_received(self, session: Session, error: OSError) -> None:
        self._note(session, "error", lambda: reason_of(error), error=reason_of(error))

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        self._notes.pop(session.id, None)
        stats = session.stats
        counted = f"packets: {stats.packets_received} in, {stats.packets_sent} out"
        dropped = f"; dropped: {stats.packets_dropped}" if stats.packets_dropped else ""
        log_event(
            "closed",
            f"session {session.id} closed, {reason.name}: {reason.value}; {counted}; "
            f"malformed: {stats.malformed.total()}{dropped}",
            session=session,
            reason=reason.name,
            packets_received=stats.packets_received,
            packets_sent=stats.packets_sent,
            bytes_received=stats.bytes_received,
            bytes_sent=stats.bytes_sent,
            malformed=stats.malformed.total(),
            dropped=stats.packets_dropped,
        )

    def _note(self, session: Session, event: str, text: Callable[[], str], **fields: Value) -> None:
        self._notes[session.id] += 1
        about = f"session {session.id} {event}: "
        if self._notes[session.id] <= NOTES_LOGGED:
            log_event(event, about + text(), logging.WARNING, session=session, **fields)
        elif self._notes[session.id] == NOTES_LOGGED + 1:
            rest = "more, from here on only counted"
            log_event("muted", about + rest, logging.WARNING, session=session, after=NOTES_LOGGED)


def log_event(
    event: str, text: str, level: int = logging.INFO, *, session: Session | None = None, **fields: Value
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
def log_to_stderr(form: str | None) -> Iterator[None]:
    """Log to standard error until the end of the block.

    Args:
        form: "logfmt" or "json", one record a line; `None` for lines to be read.
    """
    root, core = logging.getLogger(), logging.getLogger("packetcore")
    terminal = Terminal(sys.stderr)
    handler = _LogLines(terminal) if form is None else _LogRecords(terminal, _FORMS[form])
    before = root.level, core.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    core.setLevel(logging.WARNING)  # below that it tells of sessions, as `Log` does
    try:
        yield
    finally:
        root.setLevel(before[0])
        core.setLevel(before[1])
        root.removeHandler(handler)


class _LogLines(logging.Handler):
    """Log records as lines: the time, the message, and of an exception its last line."""

    def __init__(self, out: Terminal) -> None:
        super().__init__()
        self._out = out
        self._clock = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        error = _error_of(record)
        message = record.getMessage() + (f": {error}" if error else "")
        style = "red" if record.levelno >= logging.ERROR else "yellow" if record.levelno >= logging.WARNING else ""
        with suppress(NobodyReads, OSError):  # nobody reads standard error: serve on
            self._out.line(
                (self._clock.formatTime(record, "%H:%M:%S"), "dim"), "  ", (" ".join(message.splitlines()), style)
            )


class _LogRecords(logging.Handler):
    """Log records as fields: `time`, `level`, `event` or else `message`, whom it is about."""

    def __init__(self, out: Terminal, form: Callable[[Mapping[str, Value]], str]) -> None:
        super().__init__()
        self._out = out
        self._form = form

    def emit(self, record: logging.LogRecord) -> None:
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
        if isinstance(session := about.get("session"), int):
            fields["session"] = session
        if isinstance(peer := about.get("peer"), tuple):
            fields["peer"] = address_text(peer)
        if (identity := about.get("identity")) is not None:
            fields["identity"] = identity if isinstance(identity, int) else str(identity)
        fields |= about.get("fields", {})
        if error := _error_of(record):
            fields["error"] = error
        with suppress(NobodyReads, OSError):
            self._out.line(self._form(fields))


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
