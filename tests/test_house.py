"""What stands around the code is true of it: the picture, versions, units, settings of tools."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def drawing() -> ModuleType:
    """docs/draw_architecture.py, which is no package's."""
    pytest.importorskip("grimp", reason="import-linter needs Python 3.11")
    spec = importlib.util.spec_from_file_location("draw_architecture", ROOT / "docs/draw_architecture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_picture_of_the_architecture_is_that_of_the_imports(drawing: ModuleType) -> None:
    assert drawing.main(["--check"]) == 0, "python docs/draw_architecture.py draws it anew"


def test_an_import_that_the_picture_lacks_is_another_picture(drawing: ModuleType) -> None:
    found = drawing.imports()
    planted = drawing.Arrow("packetcore_cluster", "packetcore_sockets")
    assert planted not in found
    assert drawing.picture(found | {planted}) != drawing.picture(found)


def test_no_picture_is_drawn_of_an_import_that_leads_upwards(drawing: ModuleType) -> None:
    planted = drawing.Arrow("packetcore_sockets", "packetcore_gevent")
    with pytest.raises(ValueError, match="packetcore_sockets imports packetcore_gevent"):
        drawing.picture(drawing.imports() | {planted})
