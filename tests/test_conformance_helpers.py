"""What the cases of the conformance kit stand on, where something goes wrong."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from packetcore_conformance.rig import Rig
from packetcore_conformance.server_process import ServerProcess


def test_a_server_process_that_does_not_come_up_says_why() -> None:
    server = ServerProcess("no-such-transport")
    with (
        pytest.raises(AssertionError, match=r"the server exited with 1 and wrote:\n(.*\n)*.*no-such-transport"),
        server,
    ):
        pass


def test_a_rig_ends_all_though_one_cannot_be_ended() -> None:
    driver: Any = SimpleNamespace(call=lambda function, *args, timeout: function(*args))
    rig, ended = Rig(driver), list[str]()

    def fail() -> None:
        raise TimeoutError("hangs")

    for what, end in (
        ("_peers", "close"),
        ("_clients", "abort"),
        ("_connection_pools", "close"),
        ("_clusters", "stop"),
    ):
        getattr(rig, what).append(SimpleNamespace(**{end: fail}))
        getattr(rig, what).append(SimpleNamespace(**{end: lambda what=what: ended.append(what)}))
    with pytest.raises(TimeoutError, match="hangs"):
        rig.close()
    assert ended == ["_peers", "_clients", "_connection_pools", "_clusters"]
