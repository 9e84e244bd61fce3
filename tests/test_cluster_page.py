"""What docs/cluster.md shows is true: its programs run, its permissions suffice, its units and manifests are sound."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from xml.etree import ElementTree

import pytest
import trustme
import yaml

from packetcore import Packet
from packetcore_asyncio import Stream, connect, serve
from packetcore_cluster import Cluster, IdentityNotConnected
from packetcore_cluster.local import nats_server
from tests.cluster_broker import start_broker, until

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "cluster.md").read_text(encoding="utf-8")
PATIENCE = 30.0


def blocks(language: str) -> list[str]:
    return [
        re.sub(f"^{indent}", "", text, flags=re.MULTILINE)
        for indent, text in re.findall(rf"^( *)```{language}\n(.*?)^ *```", PAGE, re.DOTALL | re.MULTILINE)
    ]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def running(program: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", program]
    process = subprocess.Popen(command, env={**os.environ, **environ}, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_the_gateway_and_the_service_on_the_page_run_and_end() -> None:
    pytest.importorskip("prometheus_client")
    gateway, service, _ = blocks("python")
    metrics = free_port()

    async def device(port: int) -> None:
        async with await connect("127.0.0.1", port) as stream:
            await stream.send(Packet(1, b"meter 7"))
            async for packet in stream:
                heard.append(packet)
                if packet.id == 7:
                    await stream.send(Packet(7, b"fine"))

    async def test(url: str, process: subprocess.Popen[str], port: int) -> None:
        connected = asyncio.ensure_future(device(port))
        async with Cluster(url, "fleet") as witness:
            await until(lambda: witness.find("meter 7"), "meter 7 is known")
        told = await asyncio.to_thread(commanded, url)
        assert re.match(r"meter 7 is at \S+ since \S+ \S+\nmeter 7 says fine\n$", told), told
        await until(lambda: Packet(1, b"time") in heard, "the broadcast has come")
        assert 'packetcore_sessions{endpoint="gateway"} 1.0' in await asyncio.to_thread(scraped)
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(connected, PATIENCE)

    def commanded(url: str) -> str:
        with running(service, NATS_URL=url) as process:
            told, _ = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0
            return told

    def scraped() -> str:
        with urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=PATIENCE) as answer:
            return str(answer.read().decode())

    heard: list[object] = []
    with (
        start_broker() as broker,
        running(gateway, NATS_URL=broker.url, PORT="0", METRICS_PORT=str(metrics)) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline()
        asyncio.run(test(broker.url, process, int(line.rpartition(" ")[2])))
        assert process.wait(PATIENCE) == 0


@contextmanager
def guarded_broker(folder: Path) -> Iterator[int]:
    """A broker with the configuration on the page, on a free port."""
    (conf,) = blocks("conf")
    conf, places = re.subn(r'"0\.0\.0\.0:4222"', '"127.0.0.1:-1"', conf)
    assert places == 1
    (folder / "nats.conf").write_text(conf, encoding="utf-8")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    authority.issue_cert("gateway.example").private_key_and_cert_chain_pem.write_to_path(folder / "gateway.pem")
    try:
        program = nats_server()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    command = [program, "-c", "nats.conf", "--ports_file_dir", str(folder), "-l", "nats.log"]
    process = subprocess.Popen(command, cwd=folder)
    try:
        ports = folder / f"nats-server_{process.pid}.ports"
        deadline = time.monotonic() + PATIENCE
        while not (ports.exists() and (text := ports.read_text(encoding="utf-8"))):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield int(json.loads(text)["nats"][0].rpartition(":")[2])
    finally:
        process.kill()
        process.wait(PATIENCE)


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
    program = blocks("python")[0]
    ports = {each["name"]: str(each["containerPort"]) for each in container["ports"]}
    assert ports == {
        "devices": re.findall(r'"PORT", "(\d+)"', program)[0],
        "metrics": re.findall(r'"METRICS_PORT", "(\d+)"', program)[0],
    }
    assert container["command"] == ["python", re.findall(r"# (gateway\.py)", program)[0]]
    assert {each["name"] for each in container["env"]} <= {*re.findall(r'environ\.get\("(\w+)"', program)}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        (asked,) = (value for value in container[probe].values() if isinstance(value, dict))
        assert asked["port"] in ports
    assert [each["targetPort"] for each in service["spec"]["ports"]] == ["devices"]
    sleep = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    (grace,) = re.findall(r"grace=([\d.]+)", program)
    assert pod["terminationGracePeriodSeconds"] > sleep + float(grace) + 5.0 + 10.0  # `close_timeout`, the lease
    assert yaml.safe_load(values)["config"]["cluster"] == {"enabled": True, "replicas": 3}


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    systemd = shutil.which("systemd-analyze")
    if systemd is None:
        pytest.skip("systemd-analyze is not installed")
    for unit in blocks("ini"):
        name = re.findall(r"^# \S*/(\S+)\n", unit)[0].replace("@.", "@01.")
        unit = unit.replace("/srv/gateway/bin/python", sys.executable).replace("User=gateway\n", "User=root\n")
        (tmp_path / name).write_text(unit, encoding="utf-8")
    units = [str(path) for path in sorted(tmp_path.iterdir())]
    assert [Path(unit).name for unit in units] == ["gateway.socket", "gateway@01.service"]
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
