"""How long hypothesis looks for a counter-example, and the codec in Python and in C.

`pytest` tries 150 examples of each property. `HYPOTHESIS_PROFILE=thorough PYTEST_TIMEOUT=0
pytest` tries 2,000 and takes some minutes.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import Phase, settings

from packetcore import _built, _codec, _decoder, _packet

settings.register_profile("quick", deadline=None, max_examples=150, stateful_step_count=40, print_blob=True)
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=2_000, stateful_step_count=100)
# For tests/mutation.py: the same examples each time, and any failure will do.
settings.register_profile(
    "mutation",
    settings.get_profile("quick"),
    max_examples=25,
    stateful_step_count=25,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


# `make coverage` measures the processes that run tests, and not those that tests start: some of
# these ask what a process of its own does to the last allocation.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)


@pytest.fixture(scope="module", params=["python", "C"])
def codec(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs all of a module twice, with `Decoder` and `encode` in Python and with those in C.

    Returns:
        "python" or "C".
    """
    twins = _decoder.Decoder, _codec.encode
    if request.param == "C":
        speedups = pytest.importorskip("packetcore._speedups", reason="the extension in C is not built")
        twins = speedups.Decoder, speedups.encode
    with pytest.MonkeyPatch.context() as patch:
        for twin in twins:
            patch.setattr(request.module, twin.__name__, twin)
        yield request.param


@pytest.fixture(scope="module", params=["python", "C"])
def packet_class(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs all of a module twice, with the `Packet` in Python and with that in C.

    Returns:
        "python" or "C".
    """
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "C":
            pytest.importorskip("packetcore._speedups", reason="the extension in C is not built")
        else:
            # As it is where nothing was built; pickle looks for the class in its module.
            patch.setattr(_built, "speedups", False)
            spec = importlib.util.spec_from_file_location(_packet.__name__, _packet.__file__)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            patch.setitem(sys.modules, _packet.__name__, module)
            spec.loader.exec_module(module)
            patch.setattr(request.module, "Packet", module.Packet)
        yield request.param
