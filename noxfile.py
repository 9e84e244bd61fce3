"""The checks on every Python from 3.10 to 3.14 that is installed.

nox                     the core and two adapters, on each; one that is missing is skipped, and said to be
nox -s tests-3.12       on one
nox -s lint types       as `make lint` and `make types`, which need Python 3.11 or later

`make test` is all of the tests on one Python. Here are those to which a Python can make a difference: the twins in C
and their Python, whatever reads types, bytes or the standard library, and the suite for adapters.
"""

import os
import platform
from pathlib import Path

import nox

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
PACKAGES = [".", "transports/sockets", "transports/asyncio", "transports/blocking", "tap", "cli", "conformance"]
TWINS = ["connection", "datagram", "framings", "pool", "requests", "session", "tapped", "testing"]
OTHERS = ["config", "decoder", "decoder_laws", "framing_speedups", "items", "latch", "layout", "lending", "packaging"]
OTHERS += ["packet", "rules", "speedups", "streams", "tls_records", "vectors"]
SPREAD = ["-q", "-n", "2", "--dist", "loadfile"]

# Of pyenv all versions count, and not the one alone that is chosen where nox is started.
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
if PYENV.is_dir():
    others = [path.name for path in sorted(PYENV.iterdir()) if path.name.startswith(tuple(PYTHONS))]
    os.environ.setdefault("PYENV_VERSION", ":".join(sorted(others, key=lambda name: name != platform.python_version())))

nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["tests"]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The core in C and in Python, then two adapters."""
    editable = [argument for package in PACKAGES for argument in ("-e", package)]
    session.install("pytest-xdist", "cobs", "pyserial", "websockets", *editable)
    twins = [f"tests/test_{name}.py" for name in TWINS]
    others = [f"tests/test_{name}.py" for name in OTHERS]
    session.run("pytest", *SPREAD, *twins, env={"PACKETCORE_PURE": "1"})
    session.run("pytest", *SPREAD, *twins, *others)
    session.run(
        "pytest", *SPREAD, "--pyargs", "packetcore_conformance", "--transport", "asyncio", "--transport", "blocking"
    )


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Style and imports."""
    session.run("make", "lint", external=True)


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Types, strictly."""
    session.run("make", "types", external=True)
