"""How long hypothesis looks for a counter-example.

pytest                                                        a few hundred examples each
HYPOTHESIS_PROFILE=thorough PYTEST_TIMEOUT=0 pytest           thousands; for a night
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("quick", deadline=None, max_examples=150, stateful_step_count=40, print_blob=True)
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=10_000, stateful_step_count=100)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
