"""Whether what `make wheels` has built can be released: what is in it, and whether each wheel works alone.

python tests/release.py [DIST]     what `make release-check` runs behind `twine check --strict`

Each wheel is installed by pip into an environment of its own, with what it needs and nothing else, and every module of
it is imported there, with the repository out of sight.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from email import message_from_bytes
from pathlib import Path

from packaging.tags import sys_tags
from packaging.utils import parse_wheel_filename

import packetcore

ROOT = Path(__file__).resolve().parent.parent
PROJECTS = [ROOT / "pyproject.toml", *ROOT.glob("[!.]*/pyproject.toml"), *ROOT.glob("transports/*/pyproject.toml")]
"""The distributions. Each is to be there as a wheel and as source."""

IMPORT_ALL = """
import importlib, sys
from importlib.metadata import metadata
name, wanted, *modules = sys.argv[1:]
about = metadata(name)
assert about["Version"] == wanted, about["Version"]
for module in modules:
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if "." not in module or error.name.startswith("packetcore") or not about.get_all("Provides-Extra"):
            raise
        print(f"{module} needs {error.name}, of an extra")
    except BaseException as error:
        if type(error).__name__ != "Skipped":  # what pytest raises for cases that need an extra
            raise
        print(f"{module}: {error}")
    else:
        assert found.__file__.startswith(sys.prefix), found.__file__
"""
"""What runs in the fresh environment: each module is there, and is not the repository's."""


def members(path: Path) -> dict[str, bytes]:
    """What is in a wheel or an archive of source, by its place there."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist()}
    with tarfile.open(path) as archive:
        files = {each.name.partition("/")[2]: archive.extractfile(each) for each in archive if each.isfile()}
        return {name: file.read() for name, file in files.items() if file is not None}


def metadata(inside: Mapping[str, bytes]) -> bytes:
    """What a distribution says of itself, as it stands there."""
    return next((data for name, data in inside.items() if name.endswith(("dist-info/METADATA", "PKG-INFO"))), b"")


def faults(path: Path, inside: Mapping[str, bytes]) -> Iterator[str]:
    """What is wrong with what is in it."""
    is_wheel = path.suffix == ".whl"
    about = message_from_bytes(metadata(inside))
    if about["Version"] != packetcore.__version__:
        yield f"version {about['Version']}, and packetcore has {packetcore.__version__}"
    if about["License-Expression"] != "MIT":
        yield f"licence {about['License-Expression']}"
    if "\n# " not in f"\n{about.get_payload()}":
        yield "no README in its metadata"
    if not any(name.endswith("/LICENSE" if is_wheel else "LICENSE") for name in inside):
        yield "no LICENSE"
    if not is_wheel and "README.md" not in inside:
        yield "no README.md"
    packages = [name.rpartition("/")[0] for name in inside if re.fullmatch(r"packetcore\w*/__init__\.py", name)]
    if not packages:
        yield "no package"
    for package in packages:
        if f"{package}/py.typed" not in inside:
            yield f"no {package}/py.typed"
    if is_wheel and path.stem.endswith("-none-any") == any(name.endswith((".so", ".pyd")) for name in inside):
        yield "the extension is in a wheel for any platform, or not in one for this"
    for name, data in inside.items():
        if name.startswith("/") or ".." in name.split("/"):
            yield f"{name} leads out of it"
        for place in {ROOT, Path.home(), Path(sys.base_prefix)}:
            if bytes(place) + b"/" in data:
                yield f"{name} has a path of this machine, {place}"


def modules(inside: Mapping[str, bytes]) -> list[str]:
    """The modules of a wheel but those that run when they are imported."""
    names = [name.removesuffix("/__init__.py").removesuffix(".py") for name in inside if name.endswith(".py")]
    return sorted(name.replace("/", ".") for name in names if not name.endswith("__main__"))


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run something to its end. Gives what it printed.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or done.stdout.strip())
    return done.stdout.strip()


def try_alone(wheel: Path, wheels: Sequence[Path]) -> str:
    """Install a wheel into an environment with nothing but what it needs, and import its modules.

    Returns:
        Which modules are for extras, line by line.

    Raises:
        RuntimeError: something went wrong.
    """
    name, version, *_ = parse_wheel_filename(wheel.name)
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=False, symlinks=True)
        python = Path(folder) / "bin" / "python"
        pip: list[str | Path] = [
            sys.executable,
            "-m",
            "pip",
            "--quiet",
            "--disable-pip-version-check",
            "--python",
            python,
        ]
        run(*pip, "install", "--find-links", wheel.parent, wheel)
        run(*pip, "check")
        built = {metadata(members(each)) for each in wheels}
        for path in Path(folder).glob("lib/*/site-packages/packetcore*.dist-info/METADATA"):
            if path.read_bytes() not in built:
                raise RuntimeError(f"{path.parent.name} is of the same name and from an index")
        command: list[str | Path] = [
            python,
            "-I",
            "-W",
            "error",
            "-c",
            IMPORT_ALL,
            name,
            str(version),
            *modules(members(wheel)),
        ]
        return run(*command, cwd=Path(folder))


def main(arguments: list[str]) -> int:
    dist = Path(arguments[0] if arguments else ROOT / "dist").resolve()
    wheels, sources = sorted(dist.glob("*.whl")), sorted(dist.glob("*.tar.gz"))
    wrong = []
    for project in PROJECTS:
        found = re.search(r'^name = "(.*)"$', project.read_text(encoding="utf-8"), re.MULTILINE)
        start = "" if found is None else f"{found[1].replace('-', '_')}-{packetcore.__version__}"
        for kind, paths in (("wheel", wheels), ("archive of source", sources)):
            if not any(path.name.startswith(start) for path in paths):
                wrong.append(f"no {kind} of {project.parent.relative_to(ROOT)}: {start}")
    wrong += [f"{path.name}: {each}" for path in [*wheels, *sources] for each in faults(path, members(path))]
    fitting = {*sys_tags()}
    for path in wheels:
        began = time.monotonic()
        if fitting.isdisjoint(parse_wheel_filename(path.name)[3]):
            print(f"{path.name} is for another platform and was not tried")
            continue
        try:
            optional = try_alone(path, wheels)
        except RuntimeError as error:
            wrong.append(f"{path.name}, alone: {error}")
        else:
            print(f"{path.name} works alone ({time.monotonic() - began:.1f} s)", *optional.splitlines(), sep="\n    ")
    checked = f"{len(wheels)} wheels and {len(sources)} archives of source, version {packetcore.__version__}"
    print(*wrong or [f"{checked}: nothing is wrong"], sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
