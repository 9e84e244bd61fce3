"""Where the `packetcore` command begins."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; see `_command.run`."""
    try:
        from packetcore_cli._command import run  # which takes a part of a second, in which Ctrl-C may come
    except KeyboardInterrupt:
        return 130
    return run(argv)


if __name__ == "__main__":
    sys.exit(main())
