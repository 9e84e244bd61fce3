"""What docs/tools.md shows is what the commands print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from packetcore_cli._failure import EXIT_CODES
from tests.cli_process import serving

PAGE = (Path(__file__).parent.parent / "docs" / "tools.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)


def printed(block: str, folder: Path) -> str:
    """The block, with what its commands print now; they run in one shell."""
    lines = [line[2:] for line in block.splitlines() if line.startswith("$ ")]
    script = "packetcore() { " + f'"{sys.executable}" -m packetcore_cli "$@"' + "; }\n"
    script += "\n".join(f"printf '%s\\n' '$ {line}'\n{line}" for line in lines)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=50
    )
    assert done.stderr == ""
    return done.stdout


def test_decode_prints_what_the_page_shows(tmp_path: Path) -> None:
    for block in BLOCKS[:2]:
        assert printed(block, tmp_path) == block


def test_bench_prints_what_the_page_shows_but_for_the_figures(tmp_path: Path) -> None:
    with serving("--echo", "--port", "0") as server:
        port = server.first_line.rpartition(":")[2]
        block = BLOCKS[2].replace("7000", port).replace("--seconds 2", "--seconds 0.2")
        figure = re.compile(r"\b\d[\d,.]*\d\b|\b\d\b")
        assert figure.sub("N", printed(block, tmp_path)) == figure.sub("N", block)


def test_each_exit_code_is_on_the_page() -> None:
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)] == list(EXIT_CODES)
