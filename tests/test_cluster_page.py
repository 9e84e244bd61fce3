"""What docs/cluster.md shows is true: its programs run, its permissions suffice, its units and manifests are sound."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from xml.etree import ElementTree

import pytest
import trustme
import yaml

from packetcore import Config, Packet
from packetcore_asyncio import Stream, connect, serve
from packetcore_cli._parser import new_parser
from packetcore_cluster import Cluster, IdentityNotConnected
from tests.cli_process import Serving, serving
from tests.cluster_broker import configured_broker, start_broker, until

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "cluster.md").read_text(encoding="utf-8")
PATIENCE = 30.0


def blocks(language: str) -> list[str]:
    return [
        re.sub(f"^{indent}", "", text, flags=re.MULTILINE)
        for indent, text in re.findall(rf"^( *)```{language}\n(.*?)^ *```", PAGE, re.DOTALL | re.MULTILINE)
    ]


def test_the_gateway_and_the_service_on_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("prometheus_client")
    gateway, service, _ = blocks("python")
    (tmp_path / "gateway.py").write_text(gateway, encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    async def device(address: str) -> None:
        host, _, port = address.rpartition(":")
        async with await connect(host, int(port)) as stream:
            await stream.send(Packet(1, b"meter 7"))
            async for packet in stream:
                heard.append(packet)
                if packet.id == 7:
                    await stream.send(Packet(7, b"fine"))

    async def test(url: str, server: Serving) -> None:
        connected = asyncio.ensure_future(device(server.first_line.removeprefix("listening on ")))
        async with Cluster(url, "fleet") as witness:
            await until(lambda: witness.find("meter 7"), "meter 7 is known")
            assert witness.stats.workers == 2  # each has joined
        told = await asyncio.to_thread(commanded)
        assert re.match(r"meter 7 is at \S+ since \S+ \S+\nmeter 7 says fine\n$", told), told
        await until(lambda: Packet(1, b"time") in heard, "the broadcast has come")
        assert 'packetcore_sessions{endpoint="serve"} 1.0' in await asyncio.to_thread(scraped, server)
        server.send_signal(signal.SIGTERM)
        await asyncio.wait_for(connected, PATIENCE)
        async with Cluster(url, "fleet") as witness:  # they have said goodbye
            await until(lambda: not witness.stats.workers and not witness.stats.identities, "nothing is left")

    def commanded() -> str:
        done = subprocess.run([sys.executable, "-c", service], timeout=PATIENCE, stdout=subprocess.PIPE, check=True)
        return done.stdout.decode()

    def scraped(server: Serving) -> str:
        url = server.wait_log("metrics on ").rpartition(" ")[2]
        with urlopen(url, timeout=PATIENCE) as answer:
            return str(answer.read().decode())

    heard: list[object] = []
    command = re.search(r"^packetcore serve (.*gateway:application.*)$", PAGE, re.MULTILINE)
    assert command is not None
    options = re.sub(r"-port \d+", "-port 0", command[1]).replace("--workers 4", "--workers 2")
    with start_broker() as broker:
        monkeypatch.setenv("NATS_URL", broker.url)
        with serving(*options.replace("0.0.0.0", "127.0.0.1").split()) as server:
            asyncio.run(test(broker.url, server))
            assert server.process.wait(PATIENCE) == 0


@contextmanager
def guarded_broker(folder: Path) -> Iterator[int]:
    """A broker with the configuration on the page, on a free port."""
    (conf,) = blocks("conf")
    conf, places = re.subn(r'"0\.0\.0\.0:4222"', '"127.0.0.1:-1"', conf)
    assert places == 1
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    authority.issue_cert("gateway.example").private_key_and_cert_chain_pem.write_to_path(folder / "gateway.pem")
    with configured_broker(folder, conf) as (port, _):
        yield port


def test_the_permissions_on_the_page_suffice_and_no_others_come_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with guarded_broker(tmp_path) as port:
        program = blocks("python")[2].replace("nats.example:4222", f"127.0.0.1:{port}")

        async def test() -> None:
            async with cluster_of(program) as one, cluster_of(program) as two:
                for here, caller in ((one, two), (two, one), (one, two)):  # claimed, and taken over
                    await use(here, caller)

        asyncio.run(test())
        log = (tmp_path / "nats.log").read_text(encoding="utf-8")
        assert "Violation" not in log
        # In a process of its own: the client library leaves sockets behind where it cannot connect.
        wrong = program.replace('"secret"', '"guess"').replace('user="', 'connect_timeout=0.5, user="')
        wrong += "\nimport asyncio; asyncio.run(cluster.__aenter__())"
        done = subprocess.run(
            [sys.executable, "-c", wrong], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert "BrokerAway: the broker at tls://127.0.0.1" in done.stderr.splitlines()[-1]
        assert done.stderr.endswith("Authorization Violation'\n")


def cluster_of(program: str) -> Any:
    names: dict[str, Any] = {}
    exec(program, names)
    return names["cluster"]


async def use(here: Cluster, caller: Cluster) -> None:
    """Do from one worker what a service does, with a device of another."""

    def is_known() -> bool:
        place = caller.find("meter 7")
        return place is not None and place.worker == here.worker

    async with (
        await serve(handle_of(here), sessions=here.sessions) as server,
        await connect(*server.address[:2]) as device,
    ):
        await device.send(Packet(1, b"meter 7"))
        await until(is_known, "it is known where the device is")
        asked = asyncio.ensure_future(caller.request("meter 7", Packet(7, b"?"), timeout=PATIENCE))
        await device.send(await device.recv())
        assert await asked == Packet(7, b"?")
        await caller.broadcast(Packet(3), group="meters")
        assert await device.recv() == Packet(3)
        await caller.send("meter 7", Packet(4))
        assert await device.recv() == Packet(4)
        session = here.sessions.find("meter 7")
        assert session is not None
        session.abort()
        with pytest.raises(IdentityNotConnected):  # of which the caller was not told: it has to look
            await caller.send("meter 7", Packet(5))


def handle_of(cluster: Cluster) -> Any:
    async def handle(stream: Stream) -> None:
        packet = await stream.recv()
        stream.session.bind(packet.payload.decode())
        cluster.join(stream.session, "meters")
        async for _ in stream:
            pass

    return handle


def test_the_manifests_agree_with_the_program() -> None:
    gateway, values = blocks("yaml")
    deployment, service, budget = yaml.safe_load_all(gateway)
    assert [each["kind"] for each in (deployment, service, budget)] == ["Deployment", "Service", "PodDisruptionBudget"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [deployment["spec"]["selector"]["matchLabels"], service["spec"]["selector"]]
    assert [*selectors, budget["spec"]["selector"]["matchLabels"]] == [labels] * 3
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    ports = {each["name"]: str(each["containerPort"]) for each in container["ports"]}
    command = [*container["command"], *container["args"]]
    args = new_parser().parse_args(command[1:])
    assert (command[0], args.app) == ("packetcore", "gateway:application")
    assert ports == {"devices": str(args.port), "metrics": str(args.metrics_port)}
    assert (args.host, args.metrics_host) == (["0.0.0.0"], "0.0.0.0")
    assert {each["name"] for each in container["env"]} <= {*re.findall(r'environ\.get\("(\w+)"', blocks("python")[0])}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        (asked,) = (value for value in container[probe].values() if isinstance(value, dict))
        assert asked["port"] in ports
    assert [each["targetPort"] for each in service["spec"]["ports"]] == ["devices"]
    sleep = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > sleep + args.grace + Config().close_timeout + 10.0  # of the lease
    assert yaml.safe_load(values)["config"]["cluster"] == {"enabled": True, "replicas": 3}


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    systemd = shutil.which("systemd-analyze")
    if systemd is None:
        pytest.skip("systemd-analyze is not installed")
    for unit in blocks("ini"):
        name = re.findall(r"^# \S*/(\S+)\n", unit)[0]
        unit = unit.replace("/srv/gateway/bin/packetcore", sys.executable).replace("User=gateway\n", "User=root\n")
        (tmp_path / name).write_text(unit, encoding="utf-8")
    units = [str(path) for path in tmp_path.iterdir()]
    assert [Path(unit).name for unit in units] == ["gateway.service"]
    done = subprocess.run(
        [systemd, "verify", "--man=no", "--generators=no", *units],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        timeout=PATIENCE,
        capture_output=True,
        text=True,
        check=False,
    )
    told = [line for line in done.stderr.splitlines() if "gateway" in line]
    assert (done.returncode, told) == (0, [])


def test_the_picture_is_well_formed_and_says_what_it_shows() -> None:
    root = ElementTree.parse(DOCS / "cluster.svg").getroot()
    words = " ".join(root.itertext())
    assert "prefers-color-scheme: dark" in words
    assert {"devices", "worker", "NATS", "directory", "service"} <= {*words.split()}
