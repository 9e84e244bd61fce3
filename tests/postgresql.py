"""A PostgreSQL of one's own, for tests: on a Unix socket in a folder that goes with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NOBODY = "nobody"
"""Who runs it in root's place, which it refuses to be run by."""


def _program(name: str) -> str | None:
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))  # Debian's
    return shutil.which(name) or (str(places[-1]) if places else None)


@contextmanager
def postgresql() -> Iterator[str]:
    """Its URL, while it runs; a test is skipped where it is not installed."""
    initdb, control = _program("initdb"), _program("pg_ctl")
    if initdb is None or control is None:
        pytest.skip("PostgreSQL's server is not installed")
    by: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if os.getuid() == 0:
            import pwd

            by = {"user": NOBODY}
            os.chown(folder, pwd.getpwnam(NOBODY).pw_uid, -1)
        data, settings = f"{folder}/data", f"-c listen_addresses= -c unix_socket_directories={folder} -F"

        def run(*command: str) -> None:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, timeout=60, **by)

        run(initdb, "-D", data, "-U", "tester", "--auth=trust", "--no-sync", "--no-instructions")
        run(control, "start", "--wait", "-D", data, "-o", settings, "-l", f"{folder}/log")
        try:
            yield f"postgresql://tester@/postgres?host={folder}"
        finally:
            run(control, "stop", "--mode=immediate", "-D", data)
