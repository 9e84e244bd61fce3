"""The site of the documentation, without building it: `make docs` does that, and fails on any warning."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doc_blocks import PAGES, ROOT

DOCS = ROOT / "docs"
MODULES = {
    "packetcore": "packetcore",
    "packetcore.framings": "framings",
    "packetcore.layout": "layout",
    "packetcore.prometheus": "prometheus",
    "packetcore.testing": "testing",
    "packetcore_asyncio": "asyncio",
    "packetcore_blocking": "blocking",
    "packetcore_cluster": "cluster",
    "packetcore_cluster.blocking": "cluster",
    "packetcore_cluster.gevent": "cluster",
    "packetcore_cluster.local": "cluster",
    "packetcore_cluster.twisted": "cluster",
    "packetcore_conformance.laws": "conformance",
    "packetcore_conformance.simulation": "conformance",
    "packetcore_conformance.strategies": "conformance",
    "packetcore_conformance.vectors": "conformance",
    "packetcore_gevent": "gevent",
    "packetcore_sockets": "sockets",
    "packetcore_tap": "tap",
    "packetcore_twisted": "twisted",
}
"""By the public module: the page of the API reference that has it."""

OF_THE_SUITE = {"certificates", "damage", "descriptors", "plugin", "recorder", "resolver", "rig"}
"""Modules of `packetcore_conformance` that its cases use; nobody else is to."""

CASES = re.compile(r"test_\w+|\w+_(peer|process)|peer")


@pytest.mark.parametrize("script", ["tables.py", "stream_cases.py"])
def test_what_a_script_writes_is_what_stands_there(script: str) -> None:
    done = subprocess.run([sys.executable, DOCS / script, "--check"], timeout=60, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b""), f"python docs/{script} writes it anew"


def test_each_page_stands_in_the_contents() -> None:
    _, *lines = (DOCS / "contents.txt").read_text(encoding="utf-8").splitlines()
    listed = [
        str(path.relative_to(ROOT)) for line in lines if line[0] == " " for path in ROOT.glob(f"{line.strip()}.md")
    ]
    assert len(listed) == len(set(listed))
    assert {"README.md", "docs/index.md", *listed} == {*PAGES}


def slug(heading: str) -> str:
    """The anchor that GitHub and the site give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_each_link_to_a_heading_finds_it() -> None:
    headings = {
        page: {slug(found) for found in re.findall(r"^#+ (.*)$", (ROOT / page).read_text(encoding="utf-8"), re.M)}
        for page in PAGES
    }
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#:\s]*)#([^)]+)\)", (ROOT / page).read_text(encoding="utf-8")):
            there = page if not target else os.path.relpath(ROOT / Path(page).parent / target, ROOT)
            assert anchor in headings[os.path.normpath(there)], f"{page}: {target}#{anchor}"


@pytest.mark.parametrize("module", MODULES)
def test_each_public_name_stands_in_the_reference(module: str) -> None:
    page = (DOCS / "api" / f"{MODULES[module]}.md").read_text(encoding="utf-8")
    public = set(getattr(importlib.import_module(module), "__all__", ()))
    told = set(re.findall(rf"^\.\. auto(?:class|exception|function|data):: {re.escape(module)}\.(\w+)$", page, re.M))
    told |= set(re.findall(r"^\.\. py:data:: packetcore\.(\w+)$", page, re.M))
    whole = re.search(rf"^\.\. automodule:: {re.escape(module)}\n((?:   :[^\n]*\n)*)", page, re.M)
    if whole is not None:
        left_out = re.search(r":exclude-members: (.*)", whole[1])
        told |= public - (set(left_out[1].split(", ")) if left_out else set())
    assert whole is not None or public
    assert told >= public
    assert told - public <= {"AnyItem", "AnyPacket"} or not public


def test_each_public_module_stands_in_the_reference() -> None:
    for package in {name.partition(".")[0] for name in MODULES}:
        path = importlib.import_module(package).__path__
        public = {each.name for each in pkgutil.iter_modules(path) if not each.name.startswith("_")}
        if package == "packetcore_conformance":
            public = {name for name in public - OF_THE_SUITE if not CASES.fullmatch(name)}
        assert {f"{package}.{name}" for name in public} <= {*MODULES}
