"""Draws what `run_all.py` found: docs/benchmarks.svg.

It reads the files in `results/` beside this one, and leaves out the panel of any that is not
there. The same figures give the same file, byte for byte.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from _processes import TRANSPORTS
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, NullFormatter, StrMethodFormatter

HERE = Path(__file__).parent
RESULTS = HERE / "results"
DRAWING = HERE.parent / "docs" / "benchmarks.svg"
WIDTH = 9.0
"""Inches; a page shows the drawing at about this width."""
FOOT = 0.25
"""Inches below the panels, for what was measured on."""


@dataclass(frozen=True)
class Look:
    """How one of those compared is drawn. The colours are Okabe's and Ito's, which the colour-blind
    tell apart; the markers differ too."""

    colour: str
    marker: str
    filled: bool = True
    """False for a marker that is a mere stroke."""


BLUE, SKY, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#56B4E9", "#E69F00", "#009E73", "#D55E00", "#777777"

CODECS = {
    "packetcore": Look(BLUE, "o"),
    "packetcore, pure": Look(SKY, "o"),
    "msgpack": Look(ORANGE, "s"),
    "cobs": Look(GREEN, "D"),
    "Twisted Int32": Look(VERMILION, "^"),
}
RAW, HANDLER, STREAM, OTHER = "bare bytes", "packetcore handler", "packetcore stream", "without packetcore"
SERVERS = {
    RAW: Look(GREY, "|", filled=False),
    HANDLER: Look(BLUE, "o"),
    STREAM: Look(SKY, "o"),
    OTHER: Look(ORANGE, "s"),
}
HOLDERS = {"bare runtime": Look(GREY, "|", filled=False), "packetcore": Look(BLUE, "o")}

Line = Literal["-", "none"]
"""What joins points."""

Medians = Mapping[str, float]
"""By case."""

STYLE: dict[str, Any] = {
    "svg.hashsalt": "packetcore",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
}


def kind_of(server: str) -> str:
    """What the legend calls a server of the echo benchmark."""
    return {"raw": RAW, "handler": HANDLER, "stream": STREAM}.get(server.split()[0], OTHER)


def marks(x: Sequence[float], y: Sequence[float], look: Look, line: Line) -> Line2D:
    """Points, and a line through them if there is to be one."""
    return Line2D(
        x,
        y,
        color=look.colour,
        marker=look.marker,
        markersize=6 if look.filled else 10,
        markeredgewidth=0.5 if look.filled else 2,
        linestyle=line,
        linewidth=1.2,
        zorder=3,
    )


def mark(axes: Axes, x: Sequence[float], y: Sequence[float], look: Look, line: Line = "none") -> None:
    """Draw points."""
    axes.add_line(marks(x, y, look, line)).set_clip_on(False)
    axes.autoscale_view()


def legend(figure: SubFigure, looks: Mapping[str, Look], line: Line = "none") -> None:
    """Say beside a row what its markers mean."""
    handles = [marks([], [], look, line) for look in looks.values()]
    figure.legend(handles, list(looks), loc="outside right center", handlelength=1.6)


def title(figure: SubFigure, text: str) -> None:
    """Head a row."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=10, fontweight="bold")


def rate_axis(axes: Axes) -> None:
    """Figures that differ a hundredfold, along x."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())


def by_runtime(axes: Axes, runtimes: Sequence[str]) -> None:
    """A line for each runtime, the first on top."""
    axes.set_yticks(range(len(runtimes)), runtimes)
    axes.set_ylim(len(runtimes) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def draw_codec(figure: SubFigure, results: Mapping[str, Medians]) -> None:
    """Packets decoded a second by payload, for random bytes and for text."""
    medians = results["codec"]
    title(figure, "Decoding, 64 KiB at a time: packets a second")
    kinds = {"random": "random bytes, 1 in 128 escaped", "text": "text, nothing to escape"}
    sizes = sorted({int(name.split()[2]) for name in medians})
    for axes, (kind, text) in zip(figure.subplots(1, 2, sharey=True), kinds.items(), strict=True):
        for codec, look in CODECS.items():
            points = [
                (at, medians[name])
                for at, size in enumerate(sizes)
                if (name := f"decode {kind} {size} {codec}") in medians
            ]
            mark(axes, [x for x, _ in points], [y for _, y in points], look, "-")
        axes.set_title(text)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xticks(range(len(sizes)), [f"{size:,}" for size in sizes])
        axes.set_xlabel("bytes of payload")
        axes.grid(axis="x", visible=False)
    legend(figure, CODECS, "-")


def draw_echo(figure: SubFigure, results: Mapping[str, Medians]) -> None:
    """Packets echoed a second by runtime: with many in flight, with one, and over TLS."""
    title(figure, "Echo of 64 bytes on 50 connections: packets a second")
    cases = {
        tuple(name.split(maxsplit=1)): rate
        for file in ("echo", "echo_tls")
        for name, rate in results.get(file, {}).items()
        if not name.endswith("cost")
    }
    columns = {
        "TCP, 32 in flight on each": {
            key: rate for key, rate in cases.items() if key[1].endswith(" 32") and "TLS" not in key[1]
        },
        "TCP, 1 in flight on each": {key: rate for key, rate in cases.items() if key[1].endswith(" 1")},
        "TLS, 32 in flight on each": {key: rate for key, rate in cases.items() if key[1].endswith(" TLS 32")},
    }
    runtimes = [name for name in TRANSPORTS if any(key[0] == name for key in cases)]
    columns = {name: column for name, column in columns.items() if column}
    grid = figure.subplots(1, len(columns), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (name, column) in zip(grid, columns.items(), strict=True):
        for (runtime, server), rate in column.items():
            mark(axes, [rate], [runtimes.index(runtime)], SERVERS[kind_of(server)])
        axes.set_title(name)
        rate_axis(axes)
        by_runtime(axes, runtimes)
    kinds = {kind_of(server) for _, server in cases}
    legend(figure, {kind: look for kind, look in SERVERS.items() if kind in kinds})


def draw_memory(figure: SubFigure, results: Mapping[str, Medians]) -> None:
    """Bytes of an open connection by runtime."""
    sizes = results.get("memory", {})
    small = [
        f"{text} {sizes[name]:,.0f}"
        for name, text in (
            ("Packet, without its payload, in C", "a Packet takes"),
            ("Session that has echoed, in C", "a Session"),
        )
        if name in sizes
    ]
    title(figure, "Memory of an open connection: bytes" + (f" ({', '.join(small)})" if small else ""))
    cases: dict[str, dict[str, float]] = {}
    for file in ("connections_asyncio", "connections"):
        for name, value in results.get(file, {}).items():
            server, _, runtime = name.rpartition(" ")
            cases.setdefault(runtime, {})[server] = value
    runtimes = [name for name in TRANSPORTS if name in cases]
    axes = figure.subplots()
    for at, runtime in enumerate(runtimes):
        ours, leanest = cases[runtime]["packetcore"], next(iter(cases[runtime].values()))
        axes.plot([leanest, ours], [at, at], color="#bbbbbb", linewidth=1.5, zorder=2)
        mark(axes, [leanest], [at], HOLDERS["bare runtime"])
        mark(axes, [ours], [at], HOLDERS["packetcore"])
        axes.annotate(f"{ours:,.0f}", (ours, at), (8, 0), textcoords="offset points", va="center", color=BLUE)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    by_runtime(axes, runtimes)
    legend(figure, HOLDERS)


@dataclass(frozen=True)
class Panel:
    """One row of the drawing."""

    draw: Callable[[SubFigure, Mapping[str, Medians]], None]
    files: tuple[str, ...]
    """Whose results it shows; one of them is enough."""
    height: float
    """In inches."""


PANELS = (
    Panel(draw_codec, ("codec",), 3.0),
    Panel(draw_echo, ("echo", "echo_tls"), 2.1),
    Panel(draw_memory, ("connections", "connections_asyncio"), 1.9),
)


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """The documents that `save` wrote there, by name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def draw(documents: Mapping[str, Mapping[str, Any]], path: Path) -> bool:
    """Draw every panel that there are results for. Returns whether there was any."""
    panels = [panel for panel in PANELS if any(name in documents for name in panel.files)]
    if not panels:
        return False
    results = {
        name: {case: values["median"] for case, values in document["cases"].items()}
        for name, document in documents.items()
    }
    heights = [*(panel.height for panel in panels), FOOT]
    with style.context(STYLE):
        figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained", facecolor="white")
        rows = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        for row, panel in zip(rows[:-1], panels, strict=True):
            panel.draw(row, results)
        about = next(iter(documents.values()))
        text = f"{about['implementation']} {about['python']} on {about['platform'].partition('-')[0]}, medians"
        rows[-1].text(0.99, 0.5, text, ha="right", va="center", fontsize=7.5, color=GREY)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="what to draw")
    parser.add_argument("--out", type=Path, default=DRAWING, metavar="FILE", help="an .svg, or a .png to look at")
    options = parser.parse_args()
    if not draw(read(options.results), options.out):
        raise SystemExit(f"no results in {options.results}: run run_all.py first")
    print(f"drawn: {options.out}")


if __name__ == "__main__":
    main()
