"""Break one behaviour at a time and see that the suite notices.

    python conformance/mutants.py [--transport NAME] [NAME OF A MUTANT ...]

Each mutant is one edit to a copy of the core or of an adapter, and the case that must fail
on it. Exits 1 if a mutant survives, or if an edit no longer fits the code.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SESSION = "packetcore/_session.py"
CONNECTION = "packetcore/_connection.py"
POOL = "packetcore/_pool.py"
ASYNCIO = "transports/asyncio/packetcore_asyncio"


class Mutant(NamedTuple):
    """One broken behaviour."""

    name: str
    file: str
    before: str
    after: str
    caught_by: str


MUTANTS = [
    Mutant(
        "the flush at close is dropped",
        f"{ASYNCIO}/_socket.py",
        "            self._transport.write_eof()",
        "            self._transport.abort()",
        "test_a_close_during_a_send_loses_no_byte",
    ),
    Mutant(
        "the flush after the peer's end is dropped",
        f"{ASYNCIO}/_socket.py",
        "    def close(self) -> None:\n        self._transport.close()",
        "    def close(self) -> None:\n        self._transport.abort()",
        "test_a_long_reply_reaches_a_peer_that_has_finished_sending",
    ),
    Mutant(
        "disconnected is delivered twice",
        SESSION,
        "            self._call(self._handler.disconnected, reason)\n",
        "            self._call(self._handler.disconnected, reason)\n" * 2,
        "test_disconnected_comes_exactly_once_for_each_connected",
    ),
    Mutant(
        "a reset passes for a close by the peer",
        SESSION,
        "CloseReason.PEER if error is None else CloseReason.RESET",
        "CloseReason.PEER",
        "test_a_reset_in_the_middle_of_a_frame",
    ),
    Mutant(
        "the last chunk before the end is lost",
        CONNECTION,
        "self._decoder.feed_eof() + (",
        "[] + (",
        "test_a_frame_that_the_stream_ends_in_is_truncated",
    ),
    Mutant(
        "a pause in reading is ignored",
        f"{ASYNCIO}/_socket.py",
        "        self._paused = True\n        self._transport.pause_reading()",
        "        self._paused = True",
        "test_a_peer_that_does_not_read_is_not_read_from",
    ),
    Mutant(
        "two sends change places",
        CONNECTION,
        'b"".join(self._output)',
        'b"".join(reversed(self._output))',
        "test_the_golden_frames_are_sent",
    ),
    Mutant(
        "a session leaks from the pool",
        SESSION,
        "            self._endpoint.sessions.remove(self.id)\n",
        "",
        "test_a_connection_is_inserted_found_counted_and_removed",
    ),
    Mutant(
        "a handler that raises goes unpunished",
        SESSION,
        "        self._take(self._connection.fail(CloseReason.HANDLER_ERROR, self._now))",
        "        return",
        "test_a_handler_that_raises_ends_its_own_session_only",
    ),
    Mutant(
        "silence is never too long",
        CONNECTION,
        "        if _due(self._heard, config.idle_timeout, now):",
        "        if False:",
        "test_a_silent_peer_is_closed",
    ),
    Mutant(
        "every byte restarts the frame's clock",
        CONNECTION,
        "        elif frames or self._frame_since is None:",
        "        else:",
        "test_a_trickled_frame_is_cut_off",
    ),
    Mutant(
        "a refresh in the pool counts for nothing",
        SESSION,
        "            if refreshed is not None:",
        "            if self._paused:",
        "test_a_refresh_in_the_pool_keeps_a_silent_session",
    ),
    Mutant(
        "a replaced session lives on",
        SESSION,
        "            displaced._close(CloseReason.REPLACED)",
        "            pass",
        "test_a_device_that_comes_back_takes_its_identity_over",
    ),
    Mutant(
        "the cap lets one more in",
        POOL,
        "len(self._entries) >= self.max_sessions:",
        "len(self._entries) > self.max_sessions:",
        "test_sessions_over_the_cap_are_refused_and_counted",
    ),
    Mutant(
        "an id is given twice",
        POOL,
        "        self._last_id += 1\n",
        "        self._last_id = len(self._entries) + 1\n",
        "test_ids_count_up_and_a_stale_one_finds_nothing",
    ),
    Mutant(
        "bytes taken are told twice",
        SESSION,
        "            self._call(self._on_sent, n)",
        "            self._call(self._on_sent, 2 * n)",
        "test_every_byte_sent_is_told_once",
    ),
    Mutant(
        "nobody hears that there is room again",
        SESSION,
        "                self._call(self._handler.writable)",
        "                pass",
        "test_a_sender_waits_for_a_peer_that_does_not_read",
    ),
    Mutant(
        "a slow consumer may pile up what it likes",
        SESSION,
        "        if self._connection.buffered > self._room:\n            self._discard_queue()",
        "        if False:\n            self._discard_queue()",
        "test_a_peer_that_lets_too_much_pile_up_is_closed",
    ),
    Mutant(
        "a shutdown looks like a local close",
        SESSION,
        "CloseReason.SHUTDOWN if self._draining else CloseReason.LOCAL",
        "CloseReason.LOCAL",
        "test_a_server_that_closes_tells_every_session",
    ),
    Mutant(
        "a paused session is delivered to",
        SESSION,
        "            while queue and (not self._paused or self._lost):",
        "            while queue:",
        "test_a_paused_session_gets_nothing_until_it_is_resumed",
    ),
    Mutant(
        "a malformed frame never ends a session",
        SESSION,
        '                if self._endpoint.config.on_malformed == "close":',
        "                if False:",
        "test_a_malformed_frame_ends_the_session_where_the_config_says_so",
    ),
    Mutant(
        "a changed count is overlooked",
        "packetcore/_messages.py",
        "if run is not None and packet.count != run.count:",
        "if False:",
        "test_a_run_whose_count_changes_is_refused",
    ),
    Mutant(
        "a client trusts any server",
        "packetcore/_driver.py",
        "        if self.alpn:",
        "        if not server_side:\n"
        "            context.check_hostname = False\n"
        "            context.verify_mode = ssl.CERT_NONE\n"
        "        if self.alpn:",
        "test_a_client_refuses_a_server_that_it_does_not_trust",
    ),
    Mutant(
        "a closing session waits for its peer for ever",
        CONNECTION,
        "return [self._fail(self._close_reason)] if _due(self._closing_since, config.close_timeout, now) else []",
        "return []",
        "test_a_peer_that_never_closes_is_cut_off",
    ),
]


def survives(mutant: Mutant, transport: str) -> str | None:
    """Try one mutant. Returns what is wrong; `None` if the suite caught it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        ignore = shutil.ignore_patterns("*.egg-info", "__pycache__")
        for part in ("packetcore", "transports"):
            shutil.copytree(ROOT / part, copy / part, ignore=ignore)
        path = copy / mutant.file
        text = path.read_text(encoding="utf-8")
        if text.count(mutant.before) != 1:
            return f"the edit fits {text.count(mutant.before)} places in {mutant.file}"
        path.write_text(text.replace(mutant.before, mutant.after), encoding="utf-8")
        paths = [copy, *sorted(path for path in (copy / "transports").iterdir())]
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--timeout", "60"),
                *("--pyargs", "packetcore_conformance", "--transport", transport, "-k", mutant.caught_by),
            ],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode == 1:
            return None
        return f"pytest exited {done.returncode}: {done.stdout.strip().splitlines()[-1:]}"


def main() -> int:
    """Try the mutants asked for, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--transport", default="asyncio", help="adapter to run the cases on (asyncio)")
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutants to try; all if none are named")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        parser.error(f"unknown mutant {', '.join(sorted(unknown))}")
    failures = 0
    for mutant in MUTANTS:
        if arguments.names and mutant.name not in arguments.names:
            continue
        trouble = survives(mutant, arguments.transport)
        failures += trouble is not None
        sys.stdout.write(f"{'SURVIVED' if trouble else 'caught  '}  {mutant.name}: {trouble or mutant.caught_by}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{failures} survived\n")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
