"""Draw the state diagram in architecture.md from the core's table of transitions.

python docs/state_diagram.py           write it
python docs/state_diagram.py --check   exit 1 if what stands there is another
"""

from __future__ import annotations

import sys
from pathlib import Path

from packetcore import TRANSITIONS, State

PAGE = Path(__file__).with_name("architecture.md")
BEGIN, END = "<!-- states: drawn by state_diagram.py -->\n", "<!-- states end -->\n"


def diagram() -> str:
    """The transitions as a Mermaid state diagram, one arrow for each pair of states."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {State.OPEN.name}"]
    for source in State:
        for target in State:
            inputs = [input.name for (state, input), end in TRANSITIONS.items() if (state, end) == (source, target)]
            if inputs:
                lines.append(f"    {source.name} --> {target.name}: {', '.join(inputs)}")
    return "\n".join([*lines, f"    {State.CLOSED.name} --> [*]", "```", ""])


def main(arguments: list[str]) -> int:
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    drawn = head + BEGIN + diagram() + END + tail
    if arguments == ["--check"]:
        return int(drawn != page)
    PAGE.write_text(drawn, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
