"""Which address of a host is tried next, and when: Happy Eyeballs, RFC 8305, without a socket or a clock.

The look-up is over before the first attempt, and of both families at once, as `getaddrinfo` has it. So
the RFC's Resolution Delay, the time to wait for the AAAA answer after that for A, has no place here. The
order in which the system gives addresses (RFC 6724) stands, but for the families taking turns.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterable
from contextlib import suppress

from packetcore_sockets._carrier import address_text
from packetcore_sockets._open import AddressInfo

ATTEMPT_DELAY = 0.25
"""Seconds from one attempt to the next: the Connection Attempt Delay that RFC 8305 recommends (sections
5 and 8)."""

LEAST_ATTEMPT_DELAY = 0.1
"""Seconds: the Minimum Connection Attempt Delay that RFC 8305 recommends (section 8)."""

MOST_ATTEMPT_DELAY = 2.0
"""Seconds: the Maximum Connection Attempt Delay that RFC 8305 recommends (section 8)."""

TOLD = 8
"""Addresses that an error names, of those that were tried."""


def in_order(infos: Iterable[AddressInfo]) -> list[AddressInfo]:
    """Addresses in the order in which to try them: families take turns, the first address stays the
    first, and within its family each keeps its place (RFC 8305, section 4, with a First Address Family Count
    of 1, as section 8 recommends). One that is there twice is tried once."""
    families: dict[int, deque[AddressInfo]] = {}
    for info in dict.fromkeys(infos):
        families.setdefault(info[0], deque()).append(info)
    turns = deque(families.values())
    ordered: list[AddressInfo] = []
    while turns:
        family = turns.popleft()
        ordered.append(family.popleft())
        if family:
            turns.append(family)
    return ordered


def is_address(host: str | None) -> bool:
    """Whether a host is an IP address, with a scope ("fe80::1%eth0") or without, and so has no other."""
    with suppress(OSError, ValueError):
        socket.inet_pton(socket.AF_INET, host or "")
        return True
    with suppress(OSError, ValueError):
        socket.inet_pton(socket.AF_INET6, (host or "").partition("%")[0])
        return True
    return False


def checked_delay(delay: float) -> float:
    """See that a delay is one that RFC 8305 recommends.

    Raises:
        ValueError: it is shorter than `LEAST_ATTEMPT_DELAY` or longer than `MOST_ATTEMPT_DELAY`.
    """
    if not LEAST_ATTEMPT_DELAY <= delay <= MOST_ATTEMPT_DELAY:
        limits = f"from {LEAST_ATTEMPT_DELAY} to {MOST_ATTEMPT_DELAY} s"
        raise ValueError(f"attempt_delay={delay} is not within what RFC 8305 recommends, {limits}")
    return delay


class Attempts:
    """The attempts to connect to one host: begin with what `next` gives, tell of what `failed`.

    An attempt begins once the one before it has failed, or has taken the delay. Those before go on.

    Args:
        infos: the host's addresses.
        delay: seconds from one attempt to the next.
    """

    due: float | None = None
    """When to ask `next` again, in the time that it was given; `None` if no address waits, or one may
    be tried at once."""

    def __init__(self, infos: Iterable[AddressInfo], delay: float = ATTEMPT_DELAY) -> None:
        self._waiting = deque(in_order(infos))
        self._delay = delay
        self._tried: dict[AddressInfo, OSError | None] = {}  # in the order in which they began
        self._under_way = 0

    def next(self, now: float) -> AddressInfo | None:
        """The address with which to begin an attempt now; `None` for none yet, or none any more."""
        if not self._waiting or (self.due is not None and now < self.due):
            return None
        info = self._waiting.popleft()
        self._tried[info] = None
        self._under_way += 1
        self.due = now + self._delay if self._waiting else None
        return info

    def failed(self, info: AddressInfo, error: OSError) -> None:
        """An attempt has failed: if it was the latest, the next is due at once."""
        self._tried[info] = error
        self._under_way -= 1
        if info == next(reversed(self._tried)):
            self.due = None

    @property
    def are_over(self) -> bool:
        """Whether all have failed."""
        return not self._waiting and not self._under_way

    def error(self, host: str, port: int) -> OSError:
        """What to raise when all have failed: it names what was tried and why not, and is of the kind
        that the last address gave."""
        text = f"connecting to {host} port {port}: "
        if not self._tried:
            return OSError(text + "the host has no address")
        (info, error) = next(reversed(self._tried.items()))
        assert error is not None
        is_itself = len(self._tried) == 1 and info[4][0] == host
        text += _reason(error) if is_itself else self._told()
        return OSError(text) if error.errno is None else OSError(error.errno, text)

    def timed_out(self, error: TimeoutError) -> TimeoutError:
        """What to raise when there is no more time: an error that names what was tried, too, where that
        was more than one address."""
        return error if len(self._tried) < 2 else TimeoutError(f"{error}: {self._told()}")

    def _told(self) -> str:
        """What has been tried and how it went; of many addresses the last."""
        told = [f"{address_text(info[4])}: {_reason(error)}" for info, error in self._tried.items()]
        return "; ".join(([f"{len(told) - TOLD} others"] if len(told) > TOLD else []) + told[-TOLD:])


def _reason(error: OSError | None) -> str:
    return "no answer" if error is None else error.strerror or str(error) or type(error).__name__
