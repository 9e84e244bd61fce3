"""Write the manual page, man/packetcore.1, from what the command line takes: `make manual`.

The page is kept, so that nobody who builds or installs needs argparse-manpage; a test sees that no command and no
option is missing on it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from argparse_manpage.manpage import Manpage  # type: ignore[import-untyped]

from packetcore_cli import __version__
from packetcore_cli._failure import EXIT_CODES
from packetcore_cli._parser import new_parser

PAGE = Path(__file__).parent / "man" / "packetcore.1"

MORE = """[environment]
.TP
PACKETCORE_NO_UVLOOP
Where it is set, asyncio's own event loop is used though uvloop is installed.
.TP
PACKETCORE_PURE
Where it is set, the codec in Python is used though the one in C is installed.
.TP
NO_COLOR, FORCE_COLOR
No styles on a terminal, or styles elsewhere too.

[see also]
.BR tcpdump (1),
.BR tshark (1),
.BR wireshark (1)
"""


def page() -> str:
    """The manual page as troff."""
    parser = new_parser()
    examples = [command.epilog.partition("\n")[2] for command in parser.commands().values() if command.epilog]
    parser.epilog = None
    more = "[examples]\n.nf\n" + "\n\n".join(map(_verbatim, examples)) + "\n.fi\n\n"
    more += "[exit status]\n" + "".join(f".TP\n{code}\n{_verbatim(text)}\n" for code, text in EXIT_CODES.items())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "more")
        path.write_text(more + "\n" + MORE, encoding="utf-8")
        data = {
            "project_name": "packetcore",
            "version": __version__,
            "description": "framed packets from a shell",
            "manual_title": "packetcore",
            "include": str(path),
        }
        return str(Manpage(parser, format="pretty", _data=data))


def _verbatim(text: str) -> str:
    """Text in which nothing means something to troff."""
    return text.replace("\\", "\\e").replace("-", "\\-").replace("\n.", "\n\\&.")


if __name__ == "__main__":
    os.environ["COLUMNS"] = "80"
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
