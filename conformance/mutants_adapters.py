"""Plant one fault at a time in an adapter, or in the layer that adapters share, and see that the
kit notices.

    python conformance/mutants_adapters.py [--transport NAME] [--whole] [NAME OF A MUTANT ...]

The faults are those that were planted in an adapter of somebody else's, to see which the kit let
pass. Each names the adapter that shows it and the case that must fail. Exits 1 if one survives that
is not among `EQUIVALENT`, if one of those is noticed after all, or if an edit no longer fits.
"""

from __future__ import annotations

import argparse
import os
import sys

from mutants import ASYNCIO, SOCKETS, Mutant, copied, run_cases, survives

STREAM = f"{SOCKETS}/_stream.py"
STREAMS = "packetcore/_stream.py"

RAISED = "        except (Exception, KeyboardInterrupt, SystemExit) as error:\n"

FAULTS: dict[str, list[Mutant]] = {
    "asyncio": [
        Mutant(
            "a dialled socket keeps Nagle's algorithm",
            f"{SOCKETS}/_tcp.py",
            "        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)",
            "        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)",
            "test_small_packets",
        ),
        Mutant(
            "what the system has received is lost with the connection",
            f"{ASYNCIO}/_socket.py",
            "if exc is not None and (rest := _left_in(self._transport)):",
            "if exc is None and (rest := _left_in(self._transport)):",
            "test_resets",
        ),
        Mutant(
            "no goodbye is said over TLS",
            f"{ASYNCIO}/_tls.py",
            "    def _say_goodbye(self) -> None:\n        self._tls.close(going_away=self._endpoint.draining)",
            "    def _say_goodbye(self) -> None:\n        pass",
            "test_tls_end",
        ),
        Mutant(
            "a cut TLS stream is told as a clean end",
            f"{ASYNCIO}/_tls.py",
            "            self.session.eof(self._time(), truncated=True)",
            "            self.session.eof(self._time())",
            "test_tls_end",
        ),
        Mutant(
            "a failed handshake is not counted",
            f"{SOCKETS}/_listening.py",
            "            self._endpoint.refused(peer, Refusal.TLS_FAILED)",
            "            pass",
            "test_tls_end",
        ),
        Mutant(
            "a failed PROXY header is not counted",
            f"{SOCKETS}/_listening.py",
            "            self._endpoint.refused(proxy, Refusal.PROXY_FAILED, result)",
            "            pass",
            "test_proxy_protocol",
        ),
        Mutant(
            "anybody may tell whose connection it is",
            f"{SOCKETS}/_listening.py",
            "        elif peer in self._proxies:",
            "        elif True:",
            "test_proxy_protocol",
        ),
        Mutant(
            "a page of any origin may speak WebSocket",
            f"{SOCKETS}/_websocket/upgrade.py",
            "        elif not _is_allowed(origin, event.host, options):",
            "        elif False:",
            "test_websocket",
        ),
        Mutant(
            "an end without a Close frame is a clean one",
            f"{ASYNCIO}/_tls.py",
            "            self.session.eof(self._time(), truncated=True)",
            "            self.session.eof(self._time())",
            "test_websocket",
        ),
        Mutant(
            "pongs are no signs of life",
            f"{ASYNCIO}/_tls.py",
            "            self.session.touch(self._time())",
            "            pass",
            "test_pings_keep_alive_who_answers",
        ),
        Mutant(
            "a PROXY header is read with what follows it",
            f"{SOCKETS}/_proxied.py",
            "self._sock.recv(len(seen) if header is None else header.size - taken)",
            "self._sock.recv(len(seen))",
            "test_proxy_protocol",
        ),
        Mutant(
            "a function that raises is not told",
            STREAMS,
            f"            await function(self)\n{RAISED}            self.session.failed(error, self._clock())",
            f"            await function(self)\n{RAISED}            pass",
            "test_one_that_raises_ends_its_session_and_no_other",
        ),
        Mutant(
            "a closing server does not wait for its functions",
            f"{SOCKETS}/_server.py",
            "return self.endpoint.is_empty and not self._functions.others()",
            "return self.endpoint.is_empty",
            "test_functions",
        ),
        Mutant(
            "a closing server cuts off the handshakes under way",
            f"{SOCKETS}/_server.py",
            "min(grace, HANDSHAKE_GRACE)",
            "0.0",
            "test_a_handshake_that_is_under_way",
        ),
        Mutant(
            "a closing server does not cancel its functions",
            f"{SOCKETS}/_server.py",
            "            self._functions.cancel()\n",
            "",
            "test_a_server_that_closes_does_not_wait_for_ever",
        ),
        Mutant(
            "send_message never waits",
            STREAMS,
            "            self._drop(payload)\n        await self.drain()",
            "            self._drop(payload)",
            "test_send_message_waits_for_a_slow_peer",
        ),
        Mutant(
            "a dial goes on after the close of its client",
            "packetcore/_client.py",
            "        if self._dialling is not None:\n            self._dialling.cancel()\n",
            "",
            "test_a_client_that_is_closed_while_it_dials_leaves_nothing",
        ),
        Mutant(
            "an accepted socket keeps Nagle's algorithm",
            f"{ASYNCIO}/_runtime.py",
            "        prepare(sock)",
            "        sock.setblocking(False)",
            "test_small_packets_of_a_server",
        ),
        Mutant(
            "a client looks up names on the loop",
            f"{ASYNCIO}/_runtime.py",
            "await self.loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)",
            "socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)",
            "test_a_look_up_that_takes_long",
        ),
        Mutant(
            "only the first address of a name is tried",
            f"{SOCKETS}/_attempts.py",
            "self._waiting = deque(in_order(infos))",
            "self._waiting = deque(in_order(infos)[:1])",
            "test_each_address_of_a_name_is_tried",
        ),
        Mutant(
            "an address that refuses costs the delay of one that is silent",
            f"{SOCKETS}/_attempts.py",
            "        if info == next(reversed(self._tried)):\n            self.due = None\n",
            "",
            "test_after_a_refusal",
        ),
        Mutant(
            "an address that is silent holds up the next",
            f"{SOCKETS}/_race.py",
            "            self._timer = self._loop.call_at(attempts.due, self._go_on)",
            "            pass",
            "test_an_address_that_never_answers",
        ),
        Mutant(
            "an attempt that lost stays open",
            f"{SOCKETS}/_race.py",
            "            self._running.popitem()[1].cancel()",
            "            self._running.popitem()",
            "test_an_address_that_never_answers",
        ),
        Mutant(
            "of several hosts those that cannot be had are left out",
            f"{SOCKETS}/_bound.py",
            "            check_each(found, sockets)",
            "            pass",
            "test_of_several_hosts",
        ),
        Mutant(
            "servers and UDP clients look up names on the loop",
            f"{SOCKETS}/_look_up.py",
            "ask(flags | socket.AI_NUMERICHOST)",
            "ask(flags)",
            "test_a_look_up_that_takes_long",
        ),
        Mutant(
            "a connect goes on after its time limit",
            f"{ASYNCIO}/_opening.py",
            "        self.cancel()\n        self._done(timed_out())",
            "        self._end()\n        self._done(timed_out())",
            "test_connect_timeout_counts_the_look_up or leaves_no_descriptor",
        ),
        Mutant(
            "a UDP stream hears nobody but the address it sends to",
            f"{SOCKETS}/_adapter.py",
            "sole=handler is None",
            "sole=False",
            "test_replies_to_a_broadcast_of_a_stream",
        ),
        Mutant(
            "a function that is cancelled leaves its session open",
            STREAMS,
            "        finally:\n            await self.close()",
            "        else:\n            await self.close()",
            "test_one_that_is_cancelled",
        ),
        Mutant(
            "a recv that is cancelled has taken its packet",
            STREAMS,
            "            await self._changed.wait()\n        return item",
            '            await self._changed.wait()\n        await __import__("asyncio").sleep(0)\n        return item',
            "test_a_recv_that_is_given_up",
        ),
        Mutant(
            "call_soon calls at once, on the wrong thread",
            f"{SOCKETS}/_network.py",
            "endpoint.runs_by(self.call_soon)",
            "endpoint.runs_by(lambda callback: callback())",
            "test_threads",
        ),
        Mutant(
            "what ends the program leaves the listening sockets open",
            f"{SOCKETS}/_server.py",
            '        """A handler wants the program to end."""\n        self._stop_listening()\n',
            '        """A handler wants the program to end."""\n',
            "test_system_exit",
        ),
    ],
    "blocking": [
        Mutant(
            "a reader stays on after the end of the stream",
            STREAM,
            "            self.pause_reading()\n            self._has_ended = True",
            "            self._has_ended = True",
            "test_processor",
        ),
        Mutant(
            "a reader is resumed after the end of the stream",
            STREAM,
            "if not (self._is_reading or self._has_ended or self._is_closing or self._is_gone):",
            "if not (self._is_reading or self._is_closing or self._is_gone):",
            "test_processor",
        ),
        Mutant(
            "a writer is never switched off",
            STREAM,
            "self._loop.set_writer(self._sock, self._writable if must_write else None)",
            "self._loop.set_writer(self._sock, self._writable)",
            "test_processor",
        ),
        Mutant(
            "no goodbye is said over TLS",
            STREAM,
            "            self._tls.close(going_away=self.session.endpoint.draining)\n",
            "",
            "test_tls_end",
        ),
        Mutant(
            "a cut TLS stream is told as a clean end",
            STREAM,
            "self._end(truncated=self._tls is not None)",
            "self._end(truncated=False)",
            "test_tls_end",
        ),
        Mutant(
            "what the system has received is lost with the connection",
            STREAM,
            "rest = read_rest(self._sock)",
            'rest = b""',
            "test_resets",
        ),
        Mutant(
            "the end of a conversation is a close",
            STREAM,
            "                self._sock.shutdown(socket.SHUT_WR)",
            "                self._sock.close()",
            "test_closing",
        ),
        Mutant(
            "bytes overtake those that wait",
            STREAM,
            "        if self._unsent or self._plain or not data or (tls is not None and len(data) > PIECE):",
            "        if self._plain or not data or (tls is not None and len(data) > PIECE):",
            "test_flow or test_closing or test_streams",
        ),
        Mutant(
            "a handshake that never ends is left alone",
            f"{SOCKETS}/_prelude.py",
            "        self._timer = None if until is None else loop.call_at(until, self._time_out)",
            "        self._timer = None",
            "test_a_handshake_that_never_ends_is_cut_off",
        ),
        Mutant(
            "a failed handshake leaves its socket open",
            f"{SOCKETS}/_prelude.py",
            "            self._leave()\n            self._sock.close()",
            "            self._leave()",
            "test_a_connection_that_cannot_be_made or test_tls",
        ),
        Mutant(
            "a name server's answer is looked at in part",
            f"{SOCKETS}/_bound.py",
            "open_tcp_listeners(infos, port, backlog)",
            "open_tcp_listeners(infos[:1], port, backlog)",
            "test_addresses",
        ),
        Mutant(
            "a socket keeps Nagle's algorithm",
            f"{SOCKETS}/_tcp.py",
            "    sock.setblocking(False)\n    no_delay(sock)",
            "    sock.setblocking(False)",
            "test_small_packets",
        ),
        Mutant(
            "a writer stays on during a handshake",
            f"{SOCKETS}/_handshake.py",
            "self._loop.set_writer(self._sock, self._writable if self._unsent else None)",
            "self._loop.set_writer(self._sock, self._writable)",
            "test_processor",
        ),
        Mutant(
            "a connect that is over leaves its socket open",
            f"{SOCKETS}/_dial.py",
            "    def _time_out(self) -> None:\n        self.cancel()",
            "    def _time_out(self) -> None:\n        self._end()",
            "test_a_connection_that_cannot_be_made",
        ),
        Mutant(
            "only the first address of a name is tried",
            f"{SOCKETS}/_race.py",
            "            self._attempts.failed(info, result)\n            self._go_on()",
            "            self._end(result)",
            "test_each_address_of_a_name_is_tried",
        ),
        Mutant(
            "a function that raises is not told",
            STREAMS,
            f"            function(self)\n{RAISED}            self.session.failed(error, self._clock())",
            f"            function(self)\n{RAISED}            pass",
            "test_one_that_raises",
        ),
        Mutant(
            "send_message never waits",
            STREAMS,
            "            self._drop(payload)\n        else:\n            self._drain(timeout)",
            "            self._drop(payload)",
            "test_send_message_waits",
        ),
        Mutant(
            "a function that is done leaves its session open",
            STREAMS,
            "        finally:\n            self.close()\n\n    def _next",
            "        finally:\n            pass\n\n    def _next",
            "test_a_function_over_a_stream_is_run_anew or test_one_that_raises",
        ),
        Mutant(
            "the carrier has no subject",
            f"{SOCKETS}/_tls.py",
            '            subject=tuple(attribute for part in decoded.get("subject", ()) for attribute in part),',
            "",
            "test_carrier",
        ),
        Mutant(
            "a reset is not a reset where bytes are unsent",
            STREAM,
            "            reset_on_close(self._sock)\n",
            "            pass\n",
            "test_flow or test_closing or test_tls_end",
        ),
    ],
}

EQUIVALENT: dict[tuple[str, str], str] = {}
"""Faults that nobody can notice from outside, by adapter and name, each with why."""


def broken_cases(transport: str, faults: list[Mutant]) -> str | None:
    """What fails without any fault, among the cases that are to notice them: it would notice all."""
    cases = " or ".join(dict.fromkeys(fault.caught_by for fault in faults))
    with copied() as copy:
        done = run_cases(copy, transport, cases)
    return None if done.returncode == 0 else done.stdout


def main() -> int:
    """Try the faults asked for, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--transport", choices=FAULTS, action="append", help="of this adapter alone")
    parser.add_argument("--whole", action="store_true", help="run the whole kit on each, not the cases it names alone")
    parser.add_argument("names", nargs="*", metavar="NAME", help="faults to plant; all if none are named")
    arguments = parser.parse_args()
    os.environ["PACKETCORE_NO_UVLOOP"] = "1"  # it sets TCP_NODELAY itself, and has a resolver of its own
    unexpected = 0
    for transport in arguments.transport or FAULTS:
        faults = [fault for fault in FAULTS[transport] if not arguments.names or fault.name in arguments.names]
        if arguments.whole:
            faults = [fault._replace(caught_by="") for fault in faults]
        if faults and (failures := broken_cases(transport, faults)) is not None:
            sys.stdout.write(f"{failures}\n{transport}: cases fail where nothing was planted\n")
            return 1
        for fault in faults:
            trouble = survives(fault, transport)
            why = EQUIVALENT.get((transport, fault.name))
            is_expected = (trouble is None) is (why is None)
            unexpected += not is_expected
            word = "caught  " if trouble is None else "SURVIVED"
            sys.stdout.write(f"{word}  {transport}: {fault.name}: {trouble or fault.caught_by or 'the kit'}")
            sys.stdout.write(f" (equivalent: {why})\n" if why else "\n")
            sys.stdout.flush()
    sys.stdout.write(f"{unexpected} not as expected\n")
    return int(unexpected > 0)


if __name__ == "__main__":
    sys.exit(main())
