"""What is built: where the extension is, in which interpreters it runs, under which licence and version."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import packetcore
from packetcore import _built
from tests import release

ROOT = Path(__file__).resolve().parent.parent
PROJECTS = sorted(
    path for depth in ("", "*/", "*/*/") for path in ROOT.glob(f"{depth}pyproject.toml") if ".venv" not in path.parts
)


def run(code: str, *arguments: str, pure: bool = False) -> list[str]:
    """Run Python in a process of its own, which may crash. Gives the words that it printed."""
    environment = {**os.environ, "PACKETCORE_PURE": str(int(pure))}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


INTERPRETERS = """
import sys, threading
try:
    import _interpreters as interpreters
    run = interpreters.exec
except ImportError:
    import _xxsubinterpreters as interpreters
    run = interpreters.run_string
code = f'''
import os, sys
sys.path.insert(0, {sys.argv[1]!r})
from packetcore import Decoder, Packet, _built, encode
packets = [Packet(number, bytes([0xFE, 0xFD, number]) * 20) for number in range(200)]
same = all(Decoder().feed(b"".join(map(encode, packets))) == packets for _ in range(20))
os.write(1, b"C " if same and _built.speedups else b"Python " if same else b"wrong ")
'''
def one():
    interpreter = interpreters.create()
    failure = run(interpreter, code)
    if failure is not None:
        print(failure, flush=True)
    interpreters.destroy(interpreter)
threads = [threading.Thread(target=one) for _ in range(int(sys.argv[2]))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="its subinterpreters")
@pytest.mark.parametrize("pure", [False, True], ids=["C", "Python"])
def test_subinterpreters_run_the_core_at_once_and_in_c(pure: bool) -> None:
    # 3.12.1 aborts at the second, with the Python twin too, and at `import asyncio` in the first already.
    many = 1 if sys.version_info[:2] == (3, 12) else 4
    expected = "Python" if pure or not _built.speedups else "C"
    folder = str(Path(packetcore.__file__).parent.parent)
    assert run(INTERPRETERS, folder, str(many), pure=pure) == [expected] * many


SETUP = """
import runpy, sys, sysconfig, types
sysconfig.get_config_vars()["Py_GIL_DISABLED"] = int(sys.argv[1])
setup = lambda ext_modules: print(*ext_modules)
sys.modules["setuptools"] = types.SimpleNamespace(Extension=lambda name, *_, **__: name, setup=setup)
runpy.run_path("setup.py")
"""


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="others have no extension at all")
@pytest.mark.parametrize(("free_threaded", "built"), [("0", ["packetcore._speedups"]), ("1", [])])
def test_a_free_threaded_python_gets_no_extension(free_threaded: str, built: list[str]) -> None:
    assert run(SETUP, free_threaded) == built


@pytest.mark.parametrize("path", PROJECTS, ids=lambda path: path.parent.name)
def test_each_distribution_names_its_licence_as_setuptools_wants_it(path: Path) -> None:
    tomllib = pytest.importorskip("tomllib")
    settings = tomllib.loads(path.read_text(encoding="utf-8"))
    project = settings["project"]
    assert settings["build-system"]["requires"] == ["setuptools>=77"]  # the first that has all of PEP 639
    assert (project["license"], project["license-files"]) == ("MIT", ["LICENSE"])
    assert not [each for each in project["classifiers"] if each.startswith("License")]
    assert (path.parent / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def released() -> Iterator[tuple[Path, dict[str, Any]]]:
    """The settings of each distribution but the examples, and where they are."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 brings it")
    for path in PROJECTS:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
        if "examples" not in path.parts:
            yield path.parent, settings


def test_all_distributions_have_one_version_and_ask_for_it_of_each_other() -> None:
    versions, asked = {}, {}
    for folder, settings in released():
        package = settings["tool"]["setuptools"]["packages"][0]
        source = (folder / package / "__init__.py").read_text(encoding="utf-8")
        versions[package] = re.findall(r'^__version__ = "(.*)"$', source, re.MULTILINE)
        names = [name for name in settings["project"].get("dependencies", ()) if name.startswith("packetcore")]
        asked[package] = {name.partition("==")[2] for name in names} or {packetcore.__version__}
    assert len(versions) >= 10
    assert versions == {package: [packetcore.__version__] for package in versions}
    assert asked == {package: {packetcore.__version__} for package in versions}


SOUND = {
    "packetcore_x/__init__.py": b"",
    "packetcore_x/py.typed": b"",
    "packetcore_x-1.dist-info/licenses/LICENSE": b"MIT",
    "packetcore_x-1.dist-info/METADATA": (
        f"Name: packetcore-x\nVersion: {packetcore.__version__}\nLicense-Expression: MIT\n\n# packetcore-x\n".encode()
    ),
}
"""What a wheel has, when nothing is wrong with it."""


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({}, None),
        ({"packetcore_x/py.typed": None}, "no packetcore_x/py.typed"),
        ({"packetcore_x/__init__.py": None}, "no package"),
        ({"packetcore_x-1.dist-info/licenses/LICENSE": None}, "no LICENSE"),
        (
            {"packetcore_x-1.dist-info/METADATA": b"Version: 0\nLicense-Expression: MIT\n\n# x\n"},
            "version 0, and packetcore",
        ),
        ({"packetcore_x/_speedups.so": b""}, "the extension is in a wheel for any platform"),
        (
            {"packetcore_x/_a.py": f"place = {str(ROOT / 'x')!r}".encode()},
            "packetcore_x/_a.py has a path of this machine",
        ),
        ({"../packetcore_x/_a.py": b""}, "../packetcore_x/_a.py leads out of it"),
    ],
)
def test_what_must_not_be_released_is_named(
    changed: dict[str, bytes | None], fault: str | None, tmp_path: Path
) -> None:
    wheel = tmp_path / "packetcore_x-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in {**SOUND, **changed}.items():
            if data is not None:
                archive.writestr(name, data)
    found = list(release.faults(wheel, release.members(wheel)))
    assert len(found) == (fault is not None)
    assert all(each.startswith(fault or "") for each in found)


def test_make_version_knows_every_place_of_the_version() -> None:
    root = dict(released())[ROOT]["tool"]["bumpversion"]
    assert root["current_version"] == packetcore.__version__
    sought = {
        (path, each["search"].replace("{current_version}", packetcore.__version__))
        for each in root["files"]
        for path in ROOT.glob(each.get("glob", each.get("filename")))
    }
    for folder, settings in released():
        place = folder / settings["tool"]["setuptools"]["packages"][0] / "__init__.py"
        assert (place, f'__version__ = "{packetcore.__version__}"') in sought
        if folder != ROOT:
            assert (folder / "pyproject.toml", f"=={packetcore.__version__}") in sought
    assert (ROOT / "CHANGELOG.md", "## Unreleased") in sought
    assert "\n## Unreleased\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
