"""Fuzzing: bytes in, laws that must hold whatever they are.

Each module named in `TARGETS` has one function `fuzz(data)`, which raises `AssertionError`, or whatever the product
raised, where something is wrong. It needs nothing but the product, so that the suite runs it over
`fuzz/corpus` (`tests/test_fuzz.py`); `python -m fuzz` looks for more with `atheris`, and `docs/testing.md` says how.
"""

from __future__ import annotations

TARGETS = {
    "decoder": ("pure", "compiled"),
    "decode": ("pure", "compiled"),
    "joiner": ("pure",),
    "framings": ("pure", "compiled"),
    "session": ("pure", "compiled"),
    "proxy": ("pure",),
    "websocket": ("pure", "compiled"),
    "twins": ("compiled",),
    "threads": ("pure", "compiled"),
}
"""What is fuzzed, and whether with the codec in Python, in C, or each in its turn. `twins` has both at once."""
