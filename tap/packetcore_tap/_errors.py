"""What is wrong with a capture."""

from __future__ import annotations


class CaptureError(ValueError):
    """A file is no capture, or is damaged; what stood before the damage was given. The message says
    what is wrong and at which byte of the file."""
