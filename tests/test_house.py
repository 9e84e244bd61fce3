"""What stands around the code is true of it: the picture, versions, units, settings of tools."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from packetcore_cli.__main__ import main

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def drawing() -> ModuleType:
    """docs/draw_architecture.py, which is no package's."""
    pytest.importorskip("grimp", reason="import-linter needs Python 3.11")
    spec = importlib.util.spec_from_file_location("draw_architecture", ROOT / "docs/draw_architecture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_picture_of_the_architecture_is_that_of_the_imports(drawing: ModuleType) -> None:
    assert drawing.main(["--check"]) == 0, "python docs/draw_architecture.py draws it anew"


def test_each_distribution_has_a_place_in_the_picture(drawing: ModuleType) -> None:
    assert {*drawing.needs()} == {name for row in drawing.layers() for name in row}, "the contract in pyproject.toml"


def test_an_import_that_the_picture_lacks_is_another_picture(drawing: ModuleType) -> None:
    found = drawing.imports()
    planted = drawing.Arrow("packetcore_cluster", "packetcore_sockets")
    assert planted not in found
    assert drawing.picture(found | {planted}) != drawing.picture(found)


def test_no_picture_is_drawn_of_an_import_that_leads_upwards(drawing: ModuleType) -> None:
    planted = drawing.Arrow("packetcore_sockets", "packetcore_gevent")
    with pytest.raises(ValueError, match="packetcore_sockets imports packetcore_gevent"):
        drawing.picture(drawing.imports() | {planted})


def test_the_units_are_what_systemd_takes(tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed")
    command = Path(sys.executable).with_name("packetcore")
    for unit in (ROOT / "deploy").iterdir():
        text = unit.read_text(encoding="utf-8")
        (tmp_path / unit.name).write_text(
            text.replace("/opt/packetcore/bin/packetcore", str(command)), encoding="utf-8"
        )
    units = sorted(tmp_path.iterdir())
    assert [unit.suffix for unit in units] == [".service", ".socket"]
    done = subprocess.run([tool, "verify", *units], capture_output=True, text=True, timeout=30, check=False)
    said = [line for line in done.stderr.splitlines() if "packetcore." in line]  # and nothing of this machine's units
    assert (done.returncode, said) == (0, [])


def test_the_unit_and_the_image_give_the_command_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    image = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    start, given = (json.loads(line) for line in re.findall(r"^(?:ENTRYPOINT|CMD) (.*)$", image, re.MULTILINE))
    unit = (ROOT / "deploy/packetcore.service").read_text(encoding="utf-8")
    service = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)[0].split()
    assert start[0] == service[0] == "/opt/packetcore/bin/packetcore"
    for command in (service, [*start, *given]):
        assert main([*command[1:], "--transport", "none such"]) == 1
        assert "none such" in capsys.readouterr().err
    ports = re.findall(r"^EXPOSE (\d+)/tcp (\d+)/udp", image, re.MULTILINE)
    assert ports == [(given[given.index("--port") + 1],) * 2]


def test_the_image_has_what_it_copies() -> None:
    copied = re.findall(r"^COPY (?!--)(.*) \S+$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    allowed = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    assert sources == {*allowed}
    assert all((ROOT / source).exists() for source in sources)
