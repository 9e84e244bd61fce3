"""The faults that `make mutants` plants still fit the sources: a run of them takes too long for every change."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def mutants(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.syspath_prepend(ROOT / "conformance")
    for name in ("mutants", "mutants_adapters"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import mutants
    import mutants_adapters

    return [*mutants.MUTANTS, *(fault for faults in mutants_adapters.FAULTS.values() for fault in faults)]


def test_each_finds_what_it_changes_once(mutants: list[Any]) -> None:
    found = {mutant.name: (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.before) for mutant in mutants}
    assert {name: count for name, count in found.items() if count != 1} == {}
