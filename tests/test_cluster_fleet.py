"""How `examples/fleet` ends where one of its programs hangs; `tests/test_fleet.py` has the rest."""

from __future__ import annotations

import os
import signal
import sys

import pytest

if sys.platform == "win32":
    pytest.skip("there is no SIGSTOP", allow_module_level=True)

from examples.fleet import __main__ as fleet


def test_a_program_that_hangs_is_killed_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "END", 0.05)
    process = fleet.Process("gateway", "nats://127.0.0.1:1")
    os.kill(process.pid, signal.SIGSTOP)
    process.end()
    assert process.has_ended() == "SIGKILL"
