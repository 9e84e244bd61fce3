"""Draw the tables that are made of the code and of what was measured: the settings in security.md, from `Config`,
and the adapters in choosing-an-adapter.md, from what their drivers say and from adapters.json.

python docs/tables.py                          write them
python docs/tables.py --check                  exit 1 if something else stands there
python docs/tables.py --measured CONFORMANCE   first write adapters.json, of benchmarks/results/*.json and of the
                                               folder CONFORMANCE, which holds what
                                               `pytest --pyargs packetcore_conformance --junitxml=FILE` wrote for all
                                               four: all.xml, and with PACKETCORE_NO_UVLOOP=1 asyncio.xml
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from packetcore import Config, load_driver

DOCS = Path(__file__).resolve().parent
MEASURED = DOCS / "adapters.json"
RESULTS = DOCS.parent / "benchmarks" / "results"

COLUMNS = {
    "asyncio": "asyncio",
    "uvloop": "asyncio on uvloop",
    "gevent": "gevent",
    "twisted": "Twisted",
    "blocking": "blocking",
}
"""As the benchmarks name them, and as people do."""

FEATURES = {
    "tcp": "TCP",
    "tls": "TLS",
    "udp": "UDP",
    "unix": "Unix sockets",
    "websocket": "WebSocket",
    "serial": "serial lines",
    "proxy": "PROXY protocol",
    "inherited": "sockets of systemd",
    "reconnect": "clients that come back",
    "pool": "connection pools",
    "framing": "other framings",
}
"""By the driver's word for it."""


def first_sentence(text: str) -> str:
    """Up to its full stop, or to a colon or semicolon behind which the reason or an example stands."""
    return re.split(r"[.;:](?=\s|$)", " ".join(text.split()), maxsplit=1)[0] + "."


def docstrings(of: type) -> dict[str, str]:
    """The string below each field."""
    (body,) = [node.body for node in ast.parse(inspect.getsource(of)).body if isinstance(node, ast.ClassDef)]
    told = {}
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            told[ast.unparse(field.target)] = str(text.value.value)
    return told


def shown(value: object) -> str:
    """A default as people write it."""
    if value is None:
        return "`None`"
    if isinstance(value, int) and not isinstance(value, bool):
        for unit, size in ("MiB", 2**20), ("KiB", 2**10):
            if value >= size and not value % size:
                return f"{value // size} {unit}"
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g} s"
    return f"`{json.dumps(value)}`" if isinstance(value, str) else f"`{value!r}`"


def settings() -> Iterator[str]:
    told = docstrings(Config)
    yield "| setting | default | what it is |"
    yield "| --- | --- | --- |"
    for field in fields(Config):
        assert field.default is not MISSING, field.name
        text = first_sentence(told[field.name]).replace("|", "\\|")
        yield f"| `{field.name}` | {shown(field.default)} | {text} |"


def conformance(path: Path) -> dict[str, dict[str, int]]:
    """By adapter: how many cases passed, failed and were skipped."""
    counts: dict[str, Counter[str]] = {}
    for case in ElementTree.parse(path).iter("testcase"):
        name = re.search(r"\[(asyncio|gevent|twisted|blocking)\b", case.get("name", ""))
        if name is None:
            continue
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        counts.setdefault(name[1], Counter())[outcome] += 1
    return {name: {each: count[each] for each in ("passed", "failed", "skipped")} for name, count in counts.items()}


def measure(folder: Path) -> None:
    echo, held = (
        json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in ("echo", "connections")
    )
    own = json.loads((RESULTS / "connections_asyncio.json").read_text(encoding="utf-8"))
    cases = {**held["cases"], **own["cases"]}
    every, own_loop = conformance(folder / "all.xml"), conformance(folder / "asyncio.xml")["asyncio"]
    adapters: dict[str, Any] = {}
    for name in COLUMNS:
        run = own_loop if name == "asyncio" else every[name.replace("uvloop", "asyncio")]
        adapters[name] = {
            "conformance": run,
            "handler": round(echo["cases"][f"{name} handler 32"]["median"]),
            "stream": round(echo["cases"][f"{name} stream 32"]["median"]),
            "one by one": round(echo["cases"][f"{name} handler 1"]["median"]),
            "bytes": round(cases[f"packetcore {name}"]["median"]),
        }
    told = {"python": f"{echo['implementation']} {echo['python']}", "adapters": adapters}
    MEASURED.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def capabilities(name: str) -> frozenset[str]:
    driver = load_driver("asyncio" if name == "uvloop" else name)
    try:
        return driver.capabilities()
    finally:
        driver.stop()


def row(title: str, cells: Iterable[str]) -> str:
    return f"| {title} | {' | '.join(cells)} |"


def adapters() -> Iterator[str]:
    measured = [json.loads(MEASURED.read_text(encoding="utf-8"))["adapters"][name] for name in COLUMNS]
    can = [capabilities(name) for name in COLUMNS]
    everywhere = [title for feature, title in FEATURES.items() if all(feature in each for each in can)]
    yield f"All of them have {', '.join(everywhere[:-1])} and {everywhere[-1]}."
    yield ""
    yield row("", COLUMNS.values())
    yield row("---", ["---:"] * len(COLUMNS))
    for feature, title in FEATURES.items():
        if title not in everywhere:
            yield row(title, ["yes" if feature in each else "no" for each in can])
    runs = [each["conformance"] for each in measured]
    yield row("conformance cases passed", [f"{run['passed']}" for run in runs])
    yield row("failed", [f"{run['failed']}" for run in runs])
    yield row("skipped", [f"{run['skipped']}" for run in runs])
    yield row("million packets a second, handler", [f"{each['handler'] / 1e6:.2f}" for each in measured])
    yield row("million packets a second, stream", [f"{each['stream'] / 1e6:.2f}" for each in measured])
    yield row("packets a second one by one, handler", [f"{each['one by one']:,}" for each in measured])
    yield row("kB of memory for an idle connection", [f"{each['bytes'] / 1000:.1f}" for each in measured])


TABLES = {"settings": ("security.md", settings), "adapters": ("choosing-an-adapter.md", adapters)}


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--measured"]:
        measure(Path(arguments[1]))
    same = True
    for name, (page, lines) in TABLES.items():
        begin, end = f"<!-- {name}: drawn by tables.py -->\n", f"<!-- {name} end -->\n"
        before = (DOCS / page).read_text(encoding="utf-8")
        head, _, rest = before.partition(begin)
        _, found, tail = rest.partition(end)
        assert found, f"{page} has no place for {name}"
        after = f"{head}{begin}{''.join(f'{line}{chr(10)}' for line in lines())}{end}{tail}"
        same = same and after == before
        if arguments != ["--check"]:
            (DOCS / page).write_text(after, encoding="utf-8")
    return int(arguments == ["--check"] and not same)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
