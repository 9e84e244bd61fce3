"""Break one behaviour at a time and see that the suite notices.

    python conformance/mutants.py [--transport NAME] [NAME OF A MUTANT ...]

Each mutant is one edit to a copy of the core or of an adapter, and the case that must fail
on it. The core runs in Python alone, where it can be edited. Exits 1 if a mutant survives, or
if an edit no longer fits the code.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SESSION = "packetcore/_session.py"
CONNECTION = "packetcore/_connection.py"
PUMP = "packetcore/_pump.py"
RECEIVER = "packetcore/_receiver.py"
POOL = "packetcore/_pool.py"
ORDER = "packetcore/_order.py"
DATAGRAM = "packetcore/_datagram.py"
BACKOFF = "packetcore/_backoff.py"
CLIENT = "packetcore/_client.py"
CONNECTION_POOL = "packetcore/_connection_pool.py"
LENDING = "packetcore/_lending.py"
REQUESTS = "packetcore/_requests.py"
ENDPOINT = "packetcore/_endpoint.py"
ASYNCIO = "transports/asyncio/packetcore_asyncio"
SOCKETS = "transports/sockets/packetcore_sockets"


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
        PUMP,
        "data = self._output.join()",
        'data = b"".join(reversed(self._output.take()))',
        "test_the_golden_frames_are_sent",
    ),
    Mutant(
        "a session leaks from the pool",
        ENDPOINT,
        "        self.sessions.remove(session.id)\n",
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
        "if self.state is not State.CLOSED and _due(self._heard, config.idle_timeout, now):",
        "if False:",
        "test_a_silent_peer_is_closed",
    ),
    Mutant(
        "every byte restarts the frame's clock",
        RECEIVER,
        "        elif frames or self.frame_since is None:",
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
        "len(self) >= self.max_sessions:",
        "len(self) > self.max_sessions:",
        "test_sessions_over_the_cap_are_refused_and_counted",
    ),
    Mutant(
        "an id is given twice",
        ORDER,
        "        self._last_id += 1\n",
        "        self._last_id = len(self._by_id) + 1\n",
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
        "        elif self._output.size > self._room:",
        "        elif False:",
        "test_a_peer_that_lets_too_much_pile_up_is_reset",
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
        PUMP,
        "                    if self._queue and (not self._paused or self._lost):",
        "                    if self._queue:",
        "test_a_paused_session_gets_nothing_until_it_is_resumed",
    ),
    Mutant(
        "a malformed frame never ends a session",
        SESSION,
        '                if self._endpoint.config.on_malformed == "close" or self._endpoint.ends_on_malformed:',
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
        "packetcore/_tls.py",
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
    Mutant(
        "a stranger's garbage opens a session",
        DATAGRAM,
        "        if not (holds_packet or self._framing.may_begin(data, events)):",
        "        if not events:",
        "test_hostile_datagrams_of_a_stranger_are_counted_and_open_nothing",
    ),
    Mutant(
        "a frame goes on in the next datagram",
        DATAGRAM,
        "            events += decoder.feed_eof()\n",
        "            pass\n",
        "test_a_frame_cut_over_two_datagrams_is_no_packet",
    ),
    Mutant(
        "an empty datagram is no sign of life",
        DATAGRAM,
        "            self.sessions.refresh(peer.session.id, self.now)",
        "            pass",
        "test_a_silent_peer_is_disconnected_once_and_any_datagram_postpones_it",
    ),
    Mutant(
        "silence is noticed once and never again",
        DATAGRAM,
        "            peer.session.tick(now)\n        self._timer_at = None\n",
        "            peer.session.tick(now)\n",
        "test_a_silent_peer_is_disconnected_once_and_any_datagram_postpones_it",
    ),
    Mutant(
        "a datagram refused is not counted",
        DATAGRAM,
        "            self.refused(addr, refusal)",
        "            pass",
        "test_peers_over_the_cap_are_refused_and_counted_until_a_place_is_free",
    ),
    Mutant(
        "a pause does not stop datagrams",
        DATAGRAM,
        "        if not peer.is_reading:",
        "        if False:",
        "test_a_paused_session_discards_what_comes_and_counts_it",
    ),
    Mutant(
        "packets share a datagram",
        DATAGRAM,
        "for frame in self._connection.frames_to_send():",
        "for frame in [self._connection.bytes_to_send()]:",
        "test_a_datagram_may_hold_several_packets_and_each_reply_is_one_of_its_own",
    ),
    Mutant(
        "a session that is over keeps its address",
        DATAGRAM,
        "        peer = self._peers.pop(session.peer)",
        "        peer = self._peers[session.peer]",
        "test_a_close_comes_at_once_after_its_replies_and_the_next_packet_begins_anew",
    ),
    Mutant(
        "an error is told to whoever came first",
        DATAGRAM,
        "self._peers.get(addr, self._sole)",
        "next(iter(self._peers.values()), None)",
        "test_an_unreachable_port_is_told_to_its_own_session_and_all_go_on",
    ),
    Mutant(
        "a packet that the system does not take is not counted",
        DATAGRAM,
        "            session.count_dropped()",
        "            pass",
        "test_a_datagram_that_the_system_does_not_take_is_counted_and_told_once",
    ),
    Mutant(
        "a packet longer than a datagram is sent all the same",
        DATAGRAM,
        "        if len(frame) > self._max_datagram and not self._cuts:",
        "        if False:",
        "test_a_packet_longer_than_a_datagram_is_an_error_that_names_both_sizes_and_changes_nothing",
    ),
    Mutant(
        "a datagram that was cut passes for a whole one",
        f"{SOCKETS}/_datagram.py",
        "self._size = endpoint.config.max_datagram + 1",
        "self._size = endpoint.config.max_datagram",
        "test_a_datagram_that_the_receive_buffer_cuts_is_reported_as_too_long",
    ),
    Mutant(
        "one socket is read until it is empty",
        f"{SOCKETS}/_datagram.py",
        "READ_AT_ONCE = 64",
        "READ_AT_ONCE = 1 << 20",
        "test_an_endpoint_with_much_to_read_does_not_starve_another",
    ),
    Mutant(
        "what a send has raised is told again",
        f"{SOCKETS}/_datagram.py",
        "                if origin != _BY_THIS_HOST:",
        "                if True:",
        "test_a_datagram_that_the_system_does_not_take_is_counted_and_told_once",
    ),
    Mutant(
        "an earlier datagram's error costs the next one",
        f"{SOCKETS}/_datagram.py",
        "            if error.errno == EAGAIN or not _ERROR_QUEUE:\n                raise",
        "            raise",
        "test_sends_to_an_unreachable_server_are_not_dropped_here",
    ),
    Mutant(
        "a broadcast needs nobody's leave",
        f"{SOCKETS}/_open.py",
        "        if broadcast:\n            sock.setsockopt",
        "        if True:\n            sock.setsockopt",
        "test_a_broadcast_that_was_not_asked_for_is_an_os_error",
    ),
    Mutant(
        "a receiver hears groups that others joined",
        f"{SOCKETS}/_open.py",
        "            _set_on_linux(sock, _IP_MULTICAST_ALL, 0)  # only the groups joined here\n",
        "",
        "test_a_multicast_reaches_all_who_joined_the_group_and_nobody_else",
    ),
    Mutant(
        "waits do not grow",
        BACKOFF,
        "self._longest = min(longest * backoff.factor, backoff.maximum)",
        "self._longest = longest",
        "test_a_server_that_accepts_and_closes_at_once_is_left_alone_for_longer_and_longer",
    ),
    Mutant(
        "a connection of a moment makes the waits begin anew",
        BACKOFF,
        "now - self._connected_at >= backoff.reset_after",
        "True",
        "test_a_server_that_accepts_and_closes_at_once_is_left_alone_for_longer_and_longer",
    ),
    Mutant(
        "waits never begin anew",
        BACKOFF,
        "            self._longest = backoff.initial\n",
        "            pass\n",
        "test_a_connection_that_stayed_up_makes_the_waits_begin_anew",
    ),
    Mutant(
        "a client gives up after its first connection",
        CLIENT,
        "        self.session = None\n        self._try_again()",
        "        self.session = None\n        self._on_change()",
        "test_each_connection_that_was_made_is_one_connected_and_one_disconnected",
    ),
    Mutant(
        "a client gives up after a try that fails",
        CLIENT,
        "            self.endpoint.connect_failed(result)\n            self._try_again()",
        "            self.endpoint.connect_failed(result)",
        "test_a_server_that_is_down_at_first_is_reached_once_it_is_up",
    ),
    Mutant(
        "a client that was closed comes back",
        CLIENT,
        "        if not self.is_closed:\n            now = ",
        "        if True:\n            now = ",
        "test_a_client_that_was_closed_does_not_come_back",
    ),
    Mutant(
        "what was kept is sent in reverse",
        CLIENT,
        "self._kept.popleft()",
        "self._kept.pop()",
        "test_kept_packets_follow_the_hello_in_their_order_and_before_later_ones",
    ),
    Mutant(
        "a client keeps what it likes",
        CLIENT,
        "        elif len(self._kept) >= self._keep:",
        "        elif not self._keep:",
        "test_kept_packets_follow_the_hello_in_their_order_and_before_later_ones",
    ),
    Mutant(
        "who waits last is served first",
        CONNECTION_POOL,
        "self._hand_out(self._waiting.popitem(last=False)[0]",
        "self._hand_out(self._waiting.popitem()[0]",
        "test_no_more_streams_are_open_than_allowed_and_who_waits_is_served_in_turn",
    ),
    Mutant(
        "who gives up waiting stays in the queue",
        CONNECTION_POOL,
        "            del self._waiting[lease]",
        "            pass",
        "test_who_gives_up_waiting_leaves_the_queue_and_takes_no_place",
    ),
    Mutant(
        "a connection that fails keeps its place",
        CONNECTION_POOL,
        "        elif connection is None:  # it was to open one\n            self.size -= 1",
        "        elif connection is None:  # it was to open one\n            pass",
        "test_a_connection_that_cannot_be_made_takes_no_place",
    ),
    Mutant(
        "a place that is free is offered to nobody",
        CONNECTION_POOL,
        "        while self._waiting and self.size < self.max_size:",
        "        while False:",
        "test_who_waits_behind_a_connection_that_cannot_be_made_tries_for_itself",
    ),
    Mutant(
        "no idle stream grows too old",
        CONNECTION_POOL,
        "never if self.max_lifetime is None else opened_at + self.max_lifetime,",
        "never,",
        "test_a_stream_past_max_lifetime_is_left_to_its_user_and_then_closed",
    ),
    Mutant(
        "a pool closes without a word to those who wait",
        CONNECTION_POOL,
        "        for lease in waiting:\n            lease.on_change()",
        "",
        "test_close_ends_the_waits_and_closes_what_is_lent_when_it_comes_back",
    ),
    Mutant(
        "a stream is lent with what another has not read",
        LENDING,
        "return session.is_open and not stream.has_received",
        "return session.is_open",
        "test_a_stream_with_something_unread_is_not_lent_again",
    ),
    Mutant(
        "the last request that waits for an id is sent first",
        REQUESTS,
        "            request = next(iter(self._waiting[key]))",
        "            request = next(reversed(self._waiting[key]))",
        "test_requests_that_wait_for_one_id_are_sent_in_their_order_as_replies_come",
    ),
    Mutant(
        "two requests in flight have one id",
        REQUESTS,
        "        must_wait = id is None or (match is None and self._is_taken(id))",
        "        must_wait = id is None",
        "test_an_id_in_flight_is_refused_until_its_reply_came",
    ),
    Mutant(
        "an id in flight is picked for another request",
        REQUESTS,
        "            self._free.take(request.id)\n",
        "",
        "test_a_payload_alone_is_sent_with_an_id_that_no_request_has",
    ),
    Mutant(
        "a late reply answers a newer request",
        REQUESTS,
        "        if self._hold == 0:",
        "        if True:",
        "test_a_reply_that_comes_too_late_is_dropped_and_answers_no_newer_request",
    ),
    Mutant(
        "an id is held though its late reply came",
        REQUESTS,
        "            self._release(reply.id)\n            return True",
        "            return True",
        "test_a_reply_that_comes_too_late_is_dropped_and_answers_no_newer_request",
    ),
    Mutant(
        "an id whose reply never comes is held for ever",
        REQUESTS,
        "        hold = next(iter(self._held.values()), _NEVER) if may_send else _NEVER",
        "        hold = _NEVER",
        "test_after_the_hold_who_waits_is_sent_and_a_late_reply_is_one_like_any_other",
    ),
    Mutant(
        "a request whose time is over before its id is free is sent all the same",
        REQUESTS,
        "        elif request in self._waiting.get(id, ()):",
        "        elif False:",
        "test_a_request_that_waits_for_its_id_has_a_timeout_from_the_call_and_is_not_sent_after_it",
    ),
    Mutant(
        "a request that is cancelled is sent all the same",
        SESSION,
        "        if self._requests is not None and self._requests.forget(",
        "        if self._requests is None and self._requests.forget(",
        "test_a_request_that_is_cancelled_while_it_waits_for_its_id_is_not_sent",
    ),
    Mutant(
        "requests outlive their session",
        SESSION,
        "                self._call(_give_up, self._requests, SessionClosed(reason))",
        "                pass",
        "test_every_request_fails_when_this_side_ends_the_session",
    ),
    Mutant(
        "requests wait on for a peer that has finished sending",
        SESSION,
        "                    self._call(_give_up, self._requests, SessionClosed(CloseReason.PEER))",
        "                    pass",
        "test_every_request_fails_when_the_peer_ends_the_session",
    ),
    Mutant(
        "a session that is over leaves the totals",
        ENDPOINT,
        "        session.add_to(self._stats.total)\n",
        "",
        "test_the_totals_are_the_sums_of_what_was_sent_while_open_and_after",
    ),
    Mutant(
        "a server shuts down the sessions of another",
        ENDPOINT,
        "[session for session in self.sessions if session.endpoint is self]",
        "list(self.sessions)",
        "test_a_server_that_closes_leaves_the_sessions_of_the_other",
    ),
    Mutant(
        "a server that cannot accept says so each time",
        f"{SOCKETS}/_listener.py",
        "            self._is_failing = True\n            where",
        "            where",
        "test_a_server_out_of_descriptors_waits_for_some_and_says_so_once",
    ),
    Mutant(
        "a server that cannot accept tries without end",
        f"{SOCKETS}/_listener.py",
        "        self._loop.set_reader(self._sock, None)\n        self._pause",
        "        self._pause",
        "test_a_server_out_of_descriptors_waits_for_some_and_says_so_once",
    ),
]


def survives(mutant: Mutant, transport: str) -> str | None:
    """Try one mutant. Returns what is wrong; `None` if the suite caught it."""
    with copied() as copy:
        path = copy / mutant.file
        text = path.read_text(encoding="utf-8")
        if text.count(mutant.before) != 1:
            return f"the edit fits {text.count(mutant.before)} places in {mutant.file}"
        path.write_text(text.replace(mutant.before, mutant.after), encoding="utf-8")
        done = run_cases(copy, transport, mutant.caught_by)
        if done.returncode == 1:
            return None
        return f"pytest exited {done.returncode}: {done.stdout.strip().splitlines()[-1:]}"


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of the core and the adapters, to be edited."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        ignore = shutil.ignore_patterns("*.egg-info", "__pycache__")
        for part in ("packetcore", "transports"):
            shutil.copytree(ROOT / part, copy / part, ignore=ignore)
        yield copy


def run_cases(copy: Path, transport: str, cases: str) -> subprocess.CompletedProcess[str]:
    """Run those cases of the suite on a copy, up to the first that fails: then pytest exits with 1.

    Args:
        cases: which, as pytest's `-k` says it; all if empty.
    """
    paths = [copy, *sorted(path for path in (copy / "transports").iterdir())]
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--timeout", "60"),
            *("--pyargs", "packetcore_conformance", "--transport", transport, "-k", cases),
        ],
        cwd=copy,
        env={**os.environ, "PACKETCORE_PURE": "1", "PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


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
