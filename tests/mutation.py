"""Change one thing at a time in the sources and see whether a test notices, by mutmut.

    python tests/mutation.py core [NAME ...]     packetcore/
    python tests/mutation.py sockets [NAME ...]  packetcore_sockets/

A NAME is one of a mutant, `*` allowed: `packetcore._pool.*`. Without any, those are tried that have no result yet,
so that a run may be stopped and gone on with. It is all done in `build/mutation`; in the end the survivors are in
`build/mutation/PART/survivors.diff`, and the numbers of each module are printed. What became of the survivors is in
docs/testing.md.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
MEMORY = 4 << 30
"""Bytes that a process may have: what loops for ever may also hoard."""

SLOW = (
    "linear_time 100_000 goes_round again_and_again costs_the_same takes_as_long expiry_costs 32_bits c_does of_twisted"
)
"""Words in the names of tests that take long, or much memory, for what they would notice here, or that cannot do with
the wrappers that mutmut lays round functions."""


class Part(NamedTuple):
    """What is changed, and what has to notice."""

    sources: dict[str, str]
    tests: list[str]


def tests(names: str) -> list[str]:
    return [f"tests/test_{name}.py" for name in names.split()]


PARTS = {
    "core": Part(
        {"packetcore": "packetcore"},
        tests(
            "backoff client config connection connection_machine connection_pool datagram datagram_network "
            "deadlines decoder decoder_laws driver framings free_ids items latch layout lending logging "
            "messages packet pieces pool pool_machine prometheus reconnects requests sender session "
            "session_faults stats streams turns vectors"
        ),
    ),
    "sockets": Part(
        {"src/packetcore_sockets": "transports/sockets/packetcore_sockets"},
        tests("happy_eyeballs proxy_protocol serial_line sockets systemd timers tls_records websocket"),
    ),
}


def prepare(part: Part, tree: Path) -> None:
    """A folder as mutmut wants one: the sources as they are imported, and its settings. The extension in C, behind
    which no mutant would be seen, is not there."""
    for place, folder in {**part.sources, "tests": "tests"}.items():
        shutil.rmtree(tree / place, ignore_errors=True)
        for source in (ROOT / folder).rglob("*.py"):
            link = tree / place / source.relative_to(ROOT / folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(source)
    if (core := tree / "packetcore").is_dir():
        (core / "_speedups.py").write_text("raise ModuleNotFoundError(__name__)\n")
    quick = f"not ({SLOW.replace(' ', ' or ')})"
    settings = (
        "\n[tool.mutmut]\n"
        f"source_paths = {list(part.sources)}\n"
        f"pytest_add_cli_args_test_selection = {part.tests}\n"
        f"pytest_add_cli_args = {['-p', 'no:xdist', '-p', 'no:cacheprovider', '-k', quick]}\n"
        "timeout_multiplier = 3.0\n"
        "timeout_constant = 2.0\n"
        "track_dependencies = false\n"
        "use_git_change_detection = false\n"
    )
    (tree / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text(encoding="utf-8") + settings)


def report(tree: Path) -> None:
    os.chdir(tree)
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.mutation.diff_apply import get_diff_for_mutant
    from mutmut.stats import status_by_exit_code
    from mutmut.utils.file_utils import walk_mutatable_files

    total: Counter[str] = Counter()
    with (tree / "survivors.diff").open("w", encoding="utf-8") as survivors:
        for path in sorted(walk_mutatable_files()):
            data = SourceFileMutationData(path=path)
            data.load()
            count = Counter(status_by_exit_code[code] for code in data.exit_code_by_key.values())
            if count:
                print(f"{path}: {sum(count.values())}", *(f"{key} {number}" for key, number in sorted(count.items())))
            total += count
            for name, code in data.exit_code_by_key.items():
                if status_by_exit_code[code] not in ("killed", "timeout", "not checked"):
                    print(f"# {name}: {status_by_exit_code[code]}", file=survivors)
                    print(get_diff_for_mutant(name, path=path), file=survivors)
    print(f"all: {sum(total.values())}", *(f"{key} {number}" for key, number in sorted(total.items())))


def main() -> None:
    part, *names = sys.argv[1:]
    tree = ROOT / "build" / "mutation" / part
    prepare(PARTS[part], tree)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    environment = {**os.environ, "PACKETCORE_PURE": "1", "HYPOTHESIS_PROFILE": "mutation"}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", "2", *names]
    subprocess.run(command, cwd=tree, env=environment, check=False)
    report(tree)


if __name__ == "__main__":
    main()
