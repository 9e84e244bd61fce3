"""Memory that the extension does not get, or would not give back; and what compilers say about it.

More of it, under sanitizers and for longer: `make sanitize`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import packetcore
from tests import sanitize

if not packetcore.speedups:
    pytest.skip("the extension in C is not in use", allow_module_level=True)


def test_an_allocation_that_fails_is_a_memory_error_and_nothing_is_left_behind() -> None:
    """Each of them, of each method and function in `c_cases`, and of the import."""
    pytest.importorskip("_testcapi")
    script = Path(__file__).with_name("sanitize.py")
    done = subprocess.run([sys.executable, script, "allocations"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_a_compiler_has_nothing_to_say(compiler: str, tmp_path: Path) -> None:
    include = Path(sysconfig.get_path("include"))
    if shutil.which(compiler) is None or not (include / "Python.h").exists():
        pytest.skip(f"no {compiler}, or no Python.h")
    sanitize.compile_with(f"-O1 {sanitize.STRICT}", tmp_path, compiler)
