"""The demo's client: its server goes away, and it comes back."""

from __future__ import annotations

import time

from packetcore import Backoff, ClientBase, CloseReason, Packet, Session
from packetcore_cli._failure import Failure
from packetcore_cli._stage import PATIENCE, Stage, Witness, end_text
from packetcore_cli._text import counted

RECONNECT = Backoff(initial=0.1, maximum=0.4)
"""A demo is short: devices in the field wait longer."""

KEEP = 2


def show_a_client_that_comes_back(stage: Stage) -> None:
    """Stop a server under its client, and start it again on the same port.

    Raises:
        Failure: something did not happen, or not in time.
        OSError: a socket failed.
    """
    driver, device = stage.driver, Witness()
    stage.scene(
        "A client comes back",
        f"It connects with reconnect=Backoff(...) and keep={KEEP}. Its server is stopped and started again.",
    )
    witness = Witness()
    with stage.serving(driver.start_server, witness) as server:
        host, port = server.address[:2]
        client = driver.connect(host, port, device, reconnect=RECONNECT, keep=KEEP)
        driver.call(client.send, Packet(7, b"before"))
        _connected(stage, device)
        witness.expect(Session)
        stage.packet(witness, Packet(7, b"before"))
    session, reason = device.expect(CloseReason)
    stage.say("lost", end_text(session, reason))
    kept = [Packet(7, b"meanwhile"), Packet(7, b"and meanwhile")]
    for packet in kept:
        driver.call(client.send, packet)
    _await_failure(stage, client)
    stage.say("kept", f"{counted(driver.call(lambda: client.kept), 'packet')} for the next connection")
    with stage.serving(driver.start_server, witness := Witness(), port=port):
        _connected(stage, device)
        witness.expect(Session)
        for packet in kept:
            stage.packet(witness, packet)
        driver.call(client.close)


def _connected(stage: Stage, device: Witness) -> None:
    session, _ = device.expect(Session)
    stage.say("connected", f"session {session.id} of the client")


def _await_failure(stage: Stage, client: ClientBase) -> None:
    give_up = time.monotonic() + PATIENCE
    while not (failed := stage.driver.call(lambda: client.stats.closed[CloseReason.CONNECT_FAILED])):
        if time.monotonic() > give_up:
            raise Failure(f"demo: the client did not try again within {PATIENCE:g} s")
        time.sleep(0.01)
    stage.say("failed", "the first try to connect again" if failed == 1 else f"{failed} tries to connect again")
