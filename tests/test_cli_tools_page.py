"""What docs/tools.md shows is what the commands print."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from packetcore import load_driver
from packetcore_cli.__main__ import main
from packetcore_cli._failure import EXIT_CODES
from packetcore_conformance.recorder import echo

PAGE = (Path(__file__).parent.parent / "docs" / "tools.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)


Printed = Callable[[str], str]


@pytest.fixture
def printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Printed:
    """Gives a block with what its commands print now."""
    monkeypatch.chdir(tmp_path)

    def printed(block: str) -> str:
        told = ""
        for line in (line for line in block.splitlines() if line.startswith("$ packetcore ")):
            command, _, path = line.removeprefix("$ packetcore ").partition(" > ")
            assert main(shlex.split(command)) == 0
            out, err = capfdbinary.readouterr()
            assert err == b""
            if path:
                Path(path).write_bytes(out)
            told += f"{line}\n" + ("" if path else out.decode())
        return told

    return printed


def test_decode_prints_what_the_page_shows(printed: Printed) -> None:
    for block in BLOCKS[:2]:
        assert printed(block) == block


def test_bench_prints_what_the_page_shows_but_for_the_figures(printed: Printed) -> None:
    driver = load_driver("asyncio")
    try:
        port = str(driver.start_server(echo()).address[1])
        block = BLOCKS[2].replace("7000", port).replace("--seconds 2", "--seconds 0.2")
        figure = re.compile(r"\b\d[\d,.]*\d\b|\b\d\b")
        assert figure.sub("N", printed(block)) == figure.sub("N", block)
    finally:
        driver.stop()


def test_each_exit_code_is_on_the_page() -> None:
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)] == list(EXIT_CODES)
