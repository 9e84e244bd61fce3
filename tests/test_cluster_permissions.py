"""A broker whose user may not do all that a worker has to: who is told what is missing, on each runtime."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.msg import Msg

from packetcore import Handler, Packet, Session, installed_transports, load_driver
from packetcore_asyncio import connect, serve
from packetcore_cluster import BrokerAway, Cluster
from packetcore_cluster._calls import Outcome, answer_bytes
from packetcore_cluster._entries import Entry, entry_bytes
from packetcore_cluster._permissions import Permissions
from packetcore_conformance.rig import Rig
from tests.cluster_broker import PATIENCE, configured_broker, until

PAGE = (Path(__file__).parents[1] / "docs/cluster.md").read_text(encoding="utf-8")
NEEDED = Permissions("packetcore.fleet", "packetcore-fleet", "_INBOX")
FLEET = "KV_packetcore-fleet"
LEASE = 2.0


class Echo(Handler):
    def packet_received(self, session: Session, packet: Packet) -> None:
        session.send(packet)


def users() -> Iterator[str]:
    """One that may do all, and for each permission one that may do all else, in a configuration."""
    for missing in (
        None,
        *(("publish", each) for each in NEEDED.publish),
        *(("subscribe", each) for each in NEEDED.subscribe),
    ):
        lists = {
            verb: [each for each in subjects if (verb, each) != missing]
            for verb, subjects in (("publish", NEEDED.publish), ("subscribe", NEEDED.subscribe))
        }
        yield json.dumps({"user": name_of(missing), "password": "secret", "permissions": lists})


def name_of(missing: tuple[str, str] | None) -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", "_".join(missing or ("all",)))


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of a broker that has those users."""
    conf = (
        f'listen: "127.0.0.1:-1"\njetstream {{ store_dir: "nats" }}\nauthorization {{ users: [{", ".join(users())}] }}'
    )
    with configured_broker(tmp_path_factory.mktemp("nats"), conf) as (port, _):
        yield port


class Runtime:
    """Makes workers on one runtime."""

    def __init__(self, rig: Rig, port: int) -> None:
        self.rig = rig
        self._url = f"nats://127.0.0.1:{port}"

    def worker(self, missing: tuple[str, str] | None = None, name: str = "fleet", **options: Any) -> Any:
        """One whose user may not do something."""
        return self.rig.cluster(self._url, name, user=name_of(missing), password="secret", **options)


@pytest.fixture(params=sorted({*installed_transports()} & {"asyncio", "blocking", "gevent", "twisted"}))
def runtime(request: pytest.FixtureRequest, port: int) -> Iterator[Runtime]:
    driver = load_driver(request.param)
    rig = Rig(driver, request.param)
    try:
        yield Runtime(rig, port)
        rig.close()
    finally:
        driver.stop()


@pytest.mark.parametrize(
    ("verb", "subject"),
    [
        ("publish", f"$JS.API.STREAM.INFO.{FLEET}"),
        ("publish", f"$JS.API.CONSUMER.CREATE.{FLEET}"),
        ("subscribe", "_INBOX.>"),
    ],
)
def test_who_may_not_read_the_directory_is_told_the_permission_that_is_missing(
    runtime: Runtime, verb: str, subject: str
) -> None:
    runtime.worker()  # which makes the bucket
    with pytest.raises(BrokerAway) as refused:
        runtime.worker((verb, subject), connect_timeout=PATIENCE)
    said = f'does not let this worker {verb} to "{subject}", as it has to'
    assert re.fullmatch(
        r"the broker at nats://127\.0\.0\.1:\d+ " + re.escape(said) + ': see "Who may speak .*" in docs/cluster.md',
        str(refused.value),
    )


def test_who_names_a_cluster_that_its_user_is_not_for_is_told_so(runtime: Runtime) -> None:
    with pytest.raises(BrokerAway, match=r'publish to "\$JS\.API\.STREAM\.INFO\.KV_packetcore-other"'):
        runtime.worker(name="other", connect_timeout=PATIENCE)


def test_a_call_that_is_not_permitted_fails_at_once_and_says_so(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere, caller = runtime.worker(), runtime.worker(("publish", "packetcore.fleet.>"))
    runtime.rig.call(elsewhere.sessions.add, None, 0.0)
    runtime.rig.call(elsewhere.sessions.bind, 1, "meter 7")
    runtime.rig.until(lambda: caller.find("meter 7") is not None, "it is known where the session is")
    for _ in range(2):
        with pytest.raises(BrokerAway, match=r'publish to "packetcore\.fleet\.>"'):
            runtime.rig.call(lambda: caller.request("meter 7", Packet(1)))  # which has no timeout
    told = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert len(told) == 1
    runtime.rig.call(elsewhere.sessions.remove, 1)


def test_who_may_not_look_something_up_is_told_so(port: int) -> None:
    async def test() -> None:
        client = await nats.connect(f"nats://all:secret@127.0.0.1:{port}")
        missing = "publish", f"$JS.API.STREAM.MSG.GET.{FLEET}"
        url = f"nats://127.0.0.1:{port}"
        async with Cluster(url, "fleet", user=name_of(missing), password="secret", lease=LEASE) as caller:

            async def answer(msg: Msg) -> None:
                await msg.respond(answer_bytes(Outcome.NOT_HERE))

            await client.subscribe("packetcore.fleet.worker.nobody", cb=answer)
            await client.publish("$KV.packetcore-fleet.s.ghost", entry_bytes(Entry("nobody", 1, 0.0)))
            await until(lambda: caller.find("ghost"), "the directory has it")
            with pytest.raises(BrokerAway, match=r'publish to "\$JS\.API\.STREAM\.MSG\.GET\.KV_packetcore-fleet"'):
                await caller.send("ghost", Packet(1))
        await client.close()

    asyncio.run(test())


def test_what_is_denied_besides_is_named_by_its_first_word() -> None:
    said = 'nats: permissions violation for publish to "_inbox_b.7f3a.{}"'
    denials = [NEEDED.denial(Exception(said.format(number))) for number in range(2)]
    assert [denial and denial.permission for denial in denials] == ["_inbox_b.>"] * 2
    assert NEEDED.denial(Exception("nats: slow consumer")) is None


def test_the_page_lists_what_is_needed() -> None:
    lists = re.search(r"publish: \[(.*?)\]\s*subscribe: \[(.*?)\]", PAGE, re.DOTALL)
    assert lists is not None
    publish, subscribe = (sorted(re.findall(r'"([^"]+)"', each)) for each in lists.groups())
    assert (publish, subscribe) == (sorted(NEEDED.publish), sorted(NEEDED.subscribe))


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")
def test_a_worker_that_the_broker_turned_away_comes_back_when_it_may(tmp_path: Path) -> None:
    users = "authorization {{ users: [{{user: gateway, password: {}}}] }}"
    conf = 'listen: "127.0.0.1:-1"\njetstream {{ store_dir: "nats" }}\n' + users

    async def test() -> None:
        with configured_broker(tmp_path, conf.format("old")) as (port, process):

            def change(password: str) -> None:
                (tmp_path / "nats.conf").write_text(conf.format(password), encoding="utf-8")
                process.send_signal(signal.SIGHUP)

            async with (
                Cluster(f"nats://gateway:old@127.0.0.1:{port}", "fleet") as worker,
                await serve(Echo(), sessions=worker.sessions) as server,
                await connect(*server.address) as device,
            ):
                await device.request(Packet(1, b"here?"))
                (session,) = worker.sessions
                session.bind("meter 7")
                await worker.settled(PATIENCE)
                change("new")
                await until(lambda: not worker.is_connected, "it is turned away")
                session.bind("meter 8")
                change("old")
                await until(lambda: worker.is_connected, "it has come back")
                await worker.settled(PATIENCE)
                async with Cluster(f"nats://gateway:old@127.0.0.1:{port}", "fleet") as caller:
                    await caller.send("meter 8", Packet(2))
                    assert await device.recv() == Packet(2)
                    assert caller.find("meter 7") is None

    asyncio.run(test())
