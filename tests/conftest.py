"""How long hypothesis looks for a counter-example.

`pytest` tries 150 examples of each property. `HYPOTHESIS_PROFILE=thorough PYTEST_TIMEOUT=0
pytest` tries 2,000 and takes some minutes.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("quick", deadline=None, max_examples=150, stateful_step_count=40, print_blob=True)
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=2_000, stateful_step_count=100)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
