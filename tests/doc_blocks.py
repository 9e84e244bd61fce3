"""The blocks of code in the documents, and how each is tried. `test_doc_blocks.py` has the tests."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from itertools import pairwise, takewhile
from pathlib import Path
from typing import NamedTuple

from packetcore import installed_transports
from packetcore_cli._failure import WrongUsage
from packetcore_cli._parser import new_parser

ROOT = Path(__file__).resolve().parent.parent
PLACES = (
    "*.md",
    "docs/**/*.md",
    "cli/*.md",
    "cluster/*.md",
    "conformance/*.md",
    "tap/*.md",
    "transports/*/*.md",
    "examples/*/*.md",
)
PAGES = sorted(str(path.relative_to(ROOT)) for place in PLACES for path in ROOT.glob(place))
"""From the root of the repository."""

FENCE = re.compile(
    r"(?:<!-- not run: (?P<why>[^\n]+?) -->\n)?"
    r"^(?P<indent> *)(?P<ticks>```+)(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=indent)(?P=ticks)$",
    re.M | re.S,
)


class Block(NamedTuple):
    """What stands between two fences."""

    page: str
    line: int
    """Of its first line of code, from 1."""
    language: str
    text: str
    why_not: str | None
    """Why it cannot run: what `<!-- not run: ... -->` on the line above it says."""

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, found.start("text")) + 1,
            found["language"],
            re.sub(rf"^{found['indent']}", "", found["text"], flags=re.M),
            found["why"],
        )
        for found in FENCE.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks(page)]

COMMANDS = {"packetcore", "make", "pip", "pytest", "python", "cd"}
FOREIGN = {
    "nats": "a tool of NATS, written in Go",
    "kill": "ends what was started before",
    "systemctl": "speaks to a systemd that a test has not",
    "kubectl": "speaks to a cluster that a test has not",
}
"""Commands of others, and why they are not looked at."""


def command_lines(block: Block) -> list[list[str]]:
    """The commands of a block, each as words: of a console those behind a `$`; what else stands there is output."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    words = [shlex.split(line, comments=True) for line in lines]
    if block.language == "":  # commands, or a picture of something
        words = [each for each in words if each and each[0] in {*COMMANDS, *FOREIGN}]
    return [each for each in words if each]


def distributions() -> dict[str, str]:
    """The text of each `pyproject.toml`, by the name of what it makes."""
    found = {}
    for path in ROOT.glob("**/pyproject.toml"):
        if not any(part.startswith(".") for part in path.relative_to(ROOT).parts):
            text = path.read_text(encoding="utf-8")
            if (name := re.search(r'^name = "([^"]+)"', text, re.M)) is not None:
                found[name[1]] = text
    return found


def check_command(words: Sequence[str], folder: Path = ROOT) -> None:
    """See that a command, its options and what they name are there.

    Raises:
        AssertionError: one is not.
    """
    command, *rest = words
    rest = list(takewhile(lambda word: word not in ("|", "&&", ">", "2>"), rest))
    if rest and rest[-1] == "&":
        rest.pop()
    match command:
        case "packetcore":
            try:
                with suppress(SystemExit):  # of --help and --version
                    new_parser().parse_args(rest)
            except WrongUsage as error:
                raise AssertionError(f"{shlex.join(words)}: {error}") from None
        case "make":
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            for word in rest:
                name, is_variable, _ = word.partition("=")
                pattern = rf"\$\({name}\)" if is_variable else rf"^{re.escape(name)}:"
                assert re.search(pattern, makefile, re.M), f"make knows no {word}"
        case "pip":
            assert rest[0] == "install", words
            _check_installed(rest[1:])
        case "pytest":
            known = {"all", "yours", *installed_transports()}
            for option, value in pairwise(rest):
                if option == "--pyargs":
                    assert find_spec(value) is not None, words
                elif option == "--transport":
                    assert value in known, words
        case "python":
            _check_script(rest, folder)
        case "cd":
            assert (folder / rest[0]).is_dir(), words
        case _:
            assert command in FOREIGN, f"{command}: nobody knows whether it exists; see FOREIGN"


def _check_installed(words: Sequence[str]) -> None:
    ours = distributions()
    others = " ".join([*ours.values(), *(path.read_text(encoding="utf-8") for path in ROOT.glob("requirements*.txt"))])
    for before, word in zip(["", *words], words, strict=False):
        if before == "-e":
            assert (ROOT / word / "pyproject.toml").is_file(), word
        elif before == "-r":
            assert (ROOT / word).is_file(), word
        elif not word.startswith("-"):
            name, _, extra = word.rstrip("]").partition("[")
            assert name in ours or re.search(rf"\b{re.escape(name)}\b", others), f"{word} is unknown"
            if name in ours and extra:
                assert re.search(rf"^{extra} = \[", ours[name], re.M), f"{name} has no extra {extra}"


def _check_script(words: Sequence[str], folder: Path) -> None:
    if words[0] == "-m":
        parts = words[1].split(".")
        at = next((place for place in (folder, ROOT / "examples") if (place / parts[0]).is_dir()), None)
        if (at is not None and (at / parts[0] / "__main__.py").is_file()) or (at is not None and len(parts) > 1):
            paths = [*(at / parts[0]).glob("**/*.py")]
        else:
            spec = find_spec(words[1])
            assert spec is not None, words
            paths = [*Path(str(spec.origin)).parent.glob("**/*.py")]
    else:
        paths = [folder / words[0]]
        assert paths[0].is_file(), words
    sources = "".join(path.read_text(encoding="utf-8") for path in paths)
    for word in words[1:]:
        if word.startswith("--"):
            assert f'"{word.partition("=")[0]}"' in sources, f"{words}: no option {word}"
