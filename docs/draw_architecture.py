"""Draw architecture.svg: the distributions, and who imports whom.

The rows are the layers of the contract that `make lint` holds (pyproject.toml), and the arrows the imports of the
source, less those that follow from others. What each needs from elsewhere is what its pyproject.toml says, and the
verbs are those of `Loop` and `Host`. The same code gives the same file, byte for byte. Needs import-linter, and so
Python 3.11 or later.

python docs/draw_architecture.py           write it
python docs/draw_architecture.py --check   exit 1 if what stands there is a picture of something else
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import grimp

from packetcore import Host
from packetcore_sockets import Loop

ROOT = Path(__file__).resolve().parent.parent
PICTURE = Path(__file__).with_name("architecture.svg")
CONTRACT = "Distributions know those below them alone, and adapters not each other"
FOLDERS = [".", "transports/*", "tap", "cluster", "cli", "conformance", "examples/*_adapter"]

ABOUT = {
    "packetcore": "framings, codec, Connection, Session, SessionPool, streams: no socket, no clock, no thread",
    "packetcore_sockets": "the ready layer: TCP, UDP, TLS, WebSocket, Unix sockets, serial lines",
    "packetcore_asyncio": "and uvloop",
    "packetcore_blocking": "plain calls",
    "packetcore_gevent": "greenlets",
    "packetcore_tornado": "an example",
    "packetcore_trio": "an example",
    "packetcore_twisted": "Deferreds",
    "packetcore_tap": "recordings; a proxy that misbehaves",
    "packetcore_cli": "the packetcore command",
    "packetcore_conformance": "a suite for adapters; simulation",
    "packetcore_cluster": "a register of many machines",
}
"""What each is, in the few words that its box has room for."""

ASKED = {"packetcore": ("Host", Host), "packetcore_sockets": ("Loop", Loop)}
"""The protocols by which a distribution knows those above it, whose verbs stand in its box."""

WIDTH, MARGIN, GAP = 960, 12, 10
LANE = 24
"""Width of the way at the right, for arrows that pass a row by."""
HEIGHT, LINE, BETWEEN = 60, 16, 34
INK, PALE, BLUE = "#222222", "#666666", "#0072B2"


@dataclass(frozen=True)
class Arrow:
    """An import: who, and whom."""

    source: str
    target: str


@dataclass(frozen=True)
class Box:
    """A distribution in its place."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """Halfway from left to right."""
        return self.x + self.width / 2


def parsed(path: Path) -> dict[str, Any]:
    """What a file in TOML says."""
    settings: dict[str, Any] = importlib.import_module("tomllib").loads(path.read_text(encoding="utf-8"))
    return settings


def layers() -> list[list[str]]:
    """The rows of the contract, from the top."""
    contracts = parsed(ROOT / "pyproject.toml")["tool"]["importlinter"]["contracts"]
    contract = next(each for each in contracts if each["name"] == CONTRACT)
    return [row.split(" | ") for row in contract["layers"]]


def imports() -> set[Arrow]:
    """Who imports whom, those for types alone included."""
    packages = [name for row in layers() for name in row]
    graph = grimp.build_graph(*packages, exclude_type_checking_imports=False, cache_dir=None)
    return {
        Arrow(source, target)
        for source in packages
        for target in packages
        if source != target and graph.direct_import_exists(importer=source, imported=target, as_packages=True)
    }


def needs() -> dict[str, list[str]]:
    """What each needs from elsewhere, by the name of its package."""
    found = {}
    for folder in FOLDERS:
        for path in sorted(ROOT.glob(f"{folder}/pyproject.toml")):
            settings = parsed(path)
            names = [name.partition(">")[0] for name in settings["project"].get("dependencies", ())]
            package = settings["tool"]["setuptools"]["packages"][0]
            found[package] = [name for name in names if not name.startswith("packetcore")]
    return found


def told(arrows: set[Arrow]) -> set[Arrow]:
    """The arrows that do not follow from two others."""
    follows = set(arrows)
    while (
        more := {
            Arrow(first.source, second.target)
            for first in follows
            for second in follows
            if first.target == second.source
        }
        - follows
    ):
        follows |= more
    between = {
        Arrow(first.source, second.target) for first in arrows for second in follows if first.target == second.source
    }
    return arrows - between


def text(x: float, y: float, words: str, *, size: int = 11, colour: str = PALE) -> str:
    """A line of words around `x`."""
    weight = " font-weight='bold'" if size > 11 else ""
    place = f"x='{x:g}' y='{y:g}' font-size='{size}'{weight} fill='{colour}' text-anchor='middle'"
    return f"<text {place}>{escape(words)}</text>"


def arrow(*points: tuple[float, float]) -> str:
    """A line with a head at its end."""
    way = " L".join(f"{x:g} {y:g}" for x, y in points)
    return f"<path d='M{way}' fill='none' stroke='{INK}' marker-end='url(#head)'/>"


def verbs(protocol: type) -> str:
    """What can be asked of it, as it is written there."""
    return ", ".join(name for name in vars(protocol) if not name.startswith("_"))


def listed(names: list[str]) -> str:
    """What is needed, the first by name."""
    return (
        f"needs {', '.join(names[:2])}{f' and {len(names) - 2} more' if names[2:] else ''}"
        if names
        else "needs no library"
    )


def place(rows: Sequence[Sequence[str]], arrows: set[Arrow]) -> dict[str, Box]:
    """Each in its row, which they share in equal parts. One that is alone stands under those that import it."""
    placed: dict[str, Box] = {}
    y: float = MARGIN
    for row in rows:
        height = HEIGHT + LINE * any(name in ASKED for name in row)
        width = (WIDTH - 2 * MARGIN - LANE - GAP * (len(row) - 1)) / len(row)
        for number, name in enumerate(row):
            placed[name] = Box(MARGIN + number * (width + GAP), y, width, height)
        above = [placed[each.source] for each in arrows if each.target == row[0] and each.source in placed]
        if len(row) == 1 and above:
            left = min(box.x for box in above)
            placed[row[0]] = Box(left, y, max(box.x + box.width for box in above) - left, height)
        y += height + BETWEEN
    return placed


def elements(found: set[Arrow]) -> Iterator[str]:
    """The picture of these imports.

    Raises:
        ValueError: one leads upwards or sideways, which the contract forbids.
    """
    rows = layers()
    depth = {name: number for number, row in enumerate(rows) for name in row}
    if wrong := [f"{each.source} imports {each.target}" for each in found if depth[each.source] >= depth[each.target]]:
        raise ValueError("against the contract: " + ", ".join(sorted(wrong)))
    drawn = sorted(told(found), key=lambda each: (depth[each.source], each.source, each.target))
    passing = [each for each in drawn if depth[each.target] - depth[each.source] > 1]
    far = {each.source for each in passing}
    placed = place([sorted(row, key=lambda name: name in far) for row in rows], {*drawn} - {*passing})
    bottom = max(box.y + box.height for box in placed.values()) + MARGIN
    yield (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {bottom:g}' "
        "font-family='Helvetica, Arial, sans-serif' role='img'>"
    )
    yield "<title>The distributions of packetcore: an arrow leads from who imports to what is imported</title>"
    yield (
        "<defs><marker id='head' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='8' markerHeight='8' orient='auto'>"
        f"<path d='M0 0 L8 4 L0 8 z' fill='{INK}'/></marker></defs>"
    )
    yield f"<rect width='{WIDTH}' height='{bottom:g}' fill='white'/>"
    elsewhere = needs()
    for name, box in placed.items():
        colour = BLUE if name == "packetcore" else INK
        size = f"x='{box.x:g}' y='{box.y:g}' width='{box.width:g}' height='{box.height}'"
        yield f"<rect {size} rx='5' fill='#f4f8fb' stroke='{colour}'/>"
        yield text(box.middle, box.y + 18, name, size=12, colour=colour)
        yield text(box.middle, box.y + 18 + LINE, ABOUT[name], colour=INK)
        asked = [f"asks a {name} for {verbs(protocol)}" for name, protocol in [ASKED[name]]] if name in ASKED else []
        for number, words in enumerate([*asked, listed(elsewhere[name])], start=2):
            yield text(box.middle, box.y + 18 + LINE * number, words)
    for each in drawn:
        source, target = placed[each.source], placed[each.target]
        if each in passing:
            lane = WIDTH - MARGIN - LANE * passing.index(each) / len(passing)
            start, end = source.y + source.height / 2, target.y + target.height / 2
            yield arrow((source.x + source.width, start), (lane, start), (lane, end), (target.x + target.width, end))
        else:
            foot = min(max(source.middle, target.x + GAP), target.x + target.width - GAP)
            yield arrow((source.middle, source.y + source.height), (foot, target.y))
    yield "</svg>"


def picture(found: set[Arrow]) -> str:
    """The file's text."""
    return "".join(f"{line}\n" for line in elements(found))


def main(arguments: list[str]) -> int:
    drawn = picture(imports())
    if arguments == ["--check"]:
        return int(drawn != PICTURE.read_text(encoding="utf-8"))
    PICTURE.write_text(drawn, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
