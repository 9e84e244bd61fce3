"""How long hypothesis looks for a counter-example, and the two codecs.

`pytest` tries 150 examples of each property. `HYPOTHESIS_PROFILE=thorough PYTEST_TIMEOUT=0
pytest` tries 2,000 and takes some minutes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from packetcore import _codec, _decoder

try:
    from packetcore import _speedups
except ImportError:
    C = pytest.param(None, id="C", marks=pytest.mark.skip(reason="the extension in C is not built"))
else:
    C = pytest.param((_speedups.Decoder, _speedups.encode), id="C")

settings.register_profile("quick", deadline=None, max_examples=150, stateful_step_count=40, print_blob=True)
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=2_000, stateful_step_count=100)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture(scope="module", params=[pytest.param((_decoder.Decoder, _codec.encode), id="python"), C])
def codec(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs all of a module twice, with `Decoder` and `encode` in Python and with those in C.

    Returns:
        "python" or "C".
    """
    decoder, encode = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request.module, "Decoder", decoder)
        patch.setattr(request.module, "encode", encode)
        yield "C" if decoder.__module__ == "packetcore._speedups" else "python"
