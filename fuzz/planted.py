"""Plant bugs that the .NET library has, one at a time, and measure how soon the fuzzer finds each, from no corpus.

    python -m fuzz.planted [--seconds N] [--seeds N]

Each is planted in a copy of the package, once in Python and once in C. Exits with 1 if one is not found, or no
longer fits the code.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.live import Live

from fuzz.__main__ import Run, fuzz
from fuzz.build import ROOT, Build, build

PYTHON, C = "_decoder.py", "_c/decoder.h"
TARGET = "decoder"

_FEED = "    def feed(self, data: bytes | bytearray | memoryview, /) -> list[Packet | Malformed]:\n"


class Edit(NamedTuple):
    """A change of one file."""

    file: str
    before: str
    after: str


class Bug(NamedTuple):
    """What is wrong, in both languages."""

    name: str
    edits: tuple[Edit, ...]


BUGS = (
    Bug(
        "one packet object for all of a chunk",
        (
            Edit(
                PYTHON,
                "        if open_run:\n            self._hold(open_run, events)\n        return events\n",
                "        if open_run:\n            self._hold(open_run, events)\n"
                "        packets = [event for event in events if isinstance(event, Packet)]\n"
                "        return [packets[-1] if isinstance(event, Packet) else event for event in events]\n",
            ),
            Edit(
                C,
                "    PyObject_GC_Track(events);\n    return events;\n",
                "    PyObject *last = NULL;\n"
                "    for (Py_ssize_t at = PyList_GET_SIZE(events) - 1; at >= 0; at--) {\n"
                "        PyObject *event = PyList_GET_ITEM(events, at);\n"
                "        if (Py_TYPE(event) == state->packet) {\n"
                "            last = last == NULL ? event : last;\n"
                "            PyList_SetItem(events, at, Py_NewRef(last));\n"
                "        }\n"
                "    }\n"
                "    PyObject_GC_Track(events);\n    return events;\n",
            ),
        ),
    ),
    Bug(
        "the frame behind a lone flag is lost",
        (
            Edit(
                PYTHON,
                _FEED,
                _FEED
                + "        events: list[Packet | Malformed] = []\n"
                + "        for number, piece in enumerate(bytes(data).split(FLAG)):\n"
                + "            if number:\n"
                + "                was_in_frame = self._in_frame\n"
                + "                events += self._feed(FLAG)\n"
                + "                self._in_frame = not was_in_frame\n"
                + "            events += self._feed(piece)\n"
                + "        return events\n\n"
                + _FEED.replace("feed", "_feed"),
            ),
            Edit(
                C,
                "        self->in_frame = true;\n        data++;\n",
                "        self->in_frame = !self->in_frame;\n        data++;\n",
            ),
        ),
    ),
    Bug(
        "an unfinished frame wedges the buffer",
        (
            Edit(PYTHON, '"_shares_flag")', '"_shares_flag", "_is_wedged")'),
            Edit(
                PYTHON,
                "        self._dropped = 0  # bytes",
                "        self._is_wedged = False\n        self._dropped = 0  # bytes",
            ),
            Edit(
                PYTHON,
                "            events.append(Malformed.of(Reason.TOO_SHORT, run))\n",
                "            events.append(Malformed.of(Reason.TOO_SHORT, run))\n            self._is_wedged = True\n",
            ),
            Edit(
                PYTHON, "        if FLAG_BYTE not in data:\n", "        if self._is_wedged or FLAG_BYTE not in data:\n"
            ),
            Edit(C, "    bool shares_flag;", "    bool is_wedged, shares_flag;"),
            Edit(C, "        reason = TOO_SHORT;\n", "        reason = TOO_SHORT;\n        self->is_wedged = true;\n"),
            Edit(
                C,
                "    const uint8_t *begin = data;\n    while (data < end) {\n",
                "    const uint8_t *begin = data;\n    end = self->is_wedged ? data : end;\n    while (data < end) {\n",
            ),
        ),
    ),
)
"""The .NET library's, as its users know them."""


def plant(bug: Bug, folder: Path) -> Path:
    """Copy the package and break it. Gives where the copy is.

    Raises:
        ValueError: an edit does not fit the code.
    """
    package = folder / "packetcore"
    shutil.copytree(ROOT / "packetcore", package, ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"))
    for edit in bug.edits:
        file = package / edit.file
        text = file.read_text()
        if text.count(edit.before) != 1:
            raise ValueError(f"{bug.name}: {edit.before!r} is not once in {edit.file}")
        file.write_text(text.replace(edit.before, edit.after))
    return package


def main() -> int:
    """Returns 1 if a bug was not found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.planted", description="How soon planted bugs are found.")
    parser.add_argument("--seconds", type=float, default=60.0, help="at most, for each (default 60)")
    parser.add_argument("--seeds", type=int, default=3, help="how many times each, by another seed (default 3)")
    options = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    missed = 0
    for bug in BUGS:
        with tempfile.TemporaryDirectory() as folder:
            package = plant(bug, Path(folder) / "planted")
            built = build(package, Path(folder) / "built")
            paths = os.pathsep.join([str(package.parent), str(ROOT)])
            for way, how in (("pure", Build("", environment={"PYTHONPATH": paths})), ("compiled", built)):
                for seed in range(1, options.seeds + 1):
                    run = Run(TARGET, way)
                    with Live(console=console, transient=True) as live:
                        code = fuzz(run, options.seconds, how, live, seed=seed)
                    missed += not (code and run.found)
                    console.print(
                        f"{bug.name}: {'found' if code and run.found else 'NOT FOUND'}, seed {seed}: {run.line()}"
                    )
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
