"""What the fuzzers run over, here without one: each input in `fuzz/corpus`, and what they found, each by its name.

`make fuzz` looks for more (`docs/testing.md`).
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fuzz import TARGETS

pytest.importorskip("packetcore._speedups", reason="the extension in C is not built")

from fuzz.implementations import in_c, in_python
from packetcore import speedups

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT / "fuzz" / "corpus"

pytestmark = pytest.mark.skipif(not speedups, reason="PACKETCORE_PURE: both run here")

each_core = pytest.mark.parametrize("core", [pytest.param(in_c, id="C"), pytest.param(in_python, id="python")])
Core = Callable[[], Any]


def files(name: str) -> list[Path]:
    found = sorted((CORPUS / name).iterdir())
    assert found
    return found


@pytest.mark.parametrize("name", [name for name, ways in TARGETS.items() if "compiled" in ways])
def test_the_corpus_breaks_no_law_in_c(name: str) -> None:
    target = importlib.import_module(f"fuzz.{name}").fuzz
    for file in files(name):
        try:
            target(file.read_bytes())
        except Exception as error:
            raise AssertionError(f"{file.relative_to(ROOT)}") from error


def test_the_corpus_breaks_no_law_in_python() -> None:
    code = "import sys; from fuzz.one import load; from pathlib import Path\n"
    code += "for file in map(Path, sys.argv[1:]): load(file.parent.name)(file.read_bytes())"
    inputs = [str(file) for name, ways in TARGETS.items() if "pure" in ways for file in files(name)]
    environment = {**os.environ, "PACKETCORE_PURE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *inputs], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_corpus_is_small() -> None:
    sizes = [file.stat().st_size for name in TARGETS for file in files(name)]
    assert max(sizes) <= 512
    assert sum(sizes) < 200_000
