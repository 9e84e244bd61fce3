"""Change one thing at a time in the sources and see whether a test notices.

    python tests/mutation.py core [NAME ...]     packetcore/
    python tests/mutation.py sockets [NAME ...]  packetcore_sockets/

Without a NAME those mutants are tried that have no result yet, so that a run may be stopped and gone on with. A NAME
is one of a function, `*` allowed, as in `packetcore._pool.*`: those that survived there are tried again, by slower
tests too and with all of hypothesis' examples. The survivors, each as a diff, are in `build/mutation/PART.diff`; what
became of them is in docs/testing.md.

mutmut says what to change. Its own runner lays a wrapper round every function and collects the tests anew for each
mutant, which takes seconds. Here one process imports and collects everything once. For each mutant it forks; the child
puts the changed code in the place of the function's, and runs the tests that go through the changed line, the quickest
first, up to the first that fails.
"""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import functools
import gc
import hashlib
import json
import mmap
import os
import resource
import shutil
import signal
import sys
import time
import types
from collections import Counter, defaultdict
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

# The extension, behind which no mutant would be seen, is off.
os.environ["PACKETCORE_PURE"] = "1"
os.environ.setdefault("HYPOTHESIS_PROFILE", "quick" if len(sys.argv) > 2 else "mutation")

import coverage
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.mutation_changes import Mutant, change, mutants

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "mutation"
PARTS = {"core": ROOT / "packetcore", "sockets": ROOT / "transports/sockets/packetcore_sockets"}

THOROUGH = len(sys.argv) > 2
"""Whether survivors are tried again."""
CHILDREN = os.cpu_count() or 2
MEMORY = 4 << 30
"""Bytes that a child may have: what loops for ever may also hoard."""
QUICK = 5.0 if THOROUGH else 1.0
"""Seconds: a test that takes longer is not asked."""
DOUBT = 2.0
"""Seconds after which a failure may be the machine's, which had something else to do. Then the test is asked again."""
PATIENCE = 8.0 if THOROUGH else 4.0
"""Seconds of tests for one mutant. Where more go through a line, the slowest are not asked."""

NO_MUTANT = 3
"""What a child ends with where the change is none, or no Python."""
LIVE = ("survives", "no test")
ELSEWHERE = (
    "browser c cli cluster docs examples fuzz gevent haproxy link mutants packaging pcapng rules surface twisted"
)
"""Tests of `tests/` that are of other parts, or of the extension."""


class Attempt(NamedTuple):
    mutant: Mutant
    tests: list[str] | None
    """Those to ask, in this order; None: not chosen yet."""
    suspect: str
    """The first of them if it has failed once, else nothing."""


class Run:
    """The plugin of pytest that takes the place of its loop."""

    def __init__(self, part: str, names: list[str]) -> None:
        self.package = PARTS[part]
        self.names = names
        self.path = BUILD / f"{part}.json"
        self.results: dict[str, str] = json.loads(self.path.read_text()) if self.path.exists() else {}
        """By the name of a mutant: "killed", "timeout", "survives" or "no test"."""
        self.killers: dict[str, Counter[str]] = defaultdict(Counter)
        """By the name of a function, or a file: the tests that noticed something there. They are asked first."""
        self.seconds: dict[str, float] = {}
        self.file = Path()
        self.outcomes: set[str] | None = None
        """Of the test that is measured; in a child None: there the first failure is the end."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.items = {item.nodeid: item for item in session.items}
        files = {
            ".".join(file.relative_to(self.package.parent).with_suffix("").parts): file
            for file in sorted(self.package.rglob("*.py"))
        }
        found = [mutant for module, file in files.items() for mutant in mutants(file, module)]
        asked = [mutant for mutant in found if self.is_asked(mutant.name)]
        print(f"{len(found)} mutants, {len(asked)} to try", flush=True)
        self.functions: dict[str, list[types.FunctionType]] = defaultdict(list)
        self.caches: list[functools._lru_cache_wrapper[Any]] = []
        for each in gc.get_objects():
            if isinstance(each, types.FunctionType):
                self.functions[each.__code__.co_filename].append(each)
            elif isinstance(each, functools._lru_cache_wrapper):
                self.caches.append(each)
        self.measure()
        gc.freeze()  # so that a child copies little
        try:
            self.try_all(asked)
        finally:
            self.save()
            self.tell(found)
        return True

    def is_asked(self, name: str) -> bool:
        result = self.results.get(name)
        if not self.names:
            return result is None
        named = any(fnmatch.fnmatchcase(name.partition("#")[0], each) for each in self.names)
        return named and (result is None or result in LIVE)

    def measure(self) -> None:
        """Which lines each test goes through, and how long it takes; again for what changed since the last time."""
        known, data = BUILD / "tests.json", BUILD / "lines"
        sources = {file: file.read_bytes() for package in PARTS.values() for file in sorted(package.rglob("*.py"))}
        state = hashlib.sha1(b"".join(sources.values())).hexdigest()
        old = json.loads(known.read_text()) if known.exists() else {}
        if old.get("state") != state:
            old = {"state": state, "tests": {}}
            data.unlink(missing_ok=True)
        digests = {item.path: hashlib.sha1(item.path.read_bytes()).hexdigest() for item in self.items.values()}
        new = [item for item in self.items.values() if old["tests"].get(item.nodeid, [""])[0] != digests[item.path]]
        self.lines = coverage.Coverage(
            data, branch=False, config_file=False, include=[f"{package}/*" for package in PARTS.values()]
        )
        if new and not (pid := os.fork()):
            self.lines.load()
            self.lines.start()
            for item, following in zip_longest(new, new[1:]):
                for cache in self.caches:  # else only the first test would go through what fills it
                    cache.cache_clear()
                self.lines.switch_context(item.nodeid)
                self.outcomes = set()
                begin = time.perf_counter()
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                seconds = time.perf_counter() - begin if self.outcomes == {"passed"} else 1e9
                old["tests"][item.nodeid] = digests[item.path], seconds
            self.lines.stop()
            self.lines.save()
            known.write_text(json.dumps(old))
            os._exit(0)
        if new:
            os.waitpid(pid, 0)
        self.lines.load()
        tests = json.loads(known.read_text())["tests"]
        self.seconds = {nodeid: tests[nodeid][1] for nodeid in self.items if tests[nodeid][1] < QUICK}
        print(
            f"{len(self.seconds)} of {len(self.items)} tests are quick, {sum(self.seconds.values()):.0f} s", flush=True
        )

    def tests_of(self, mutant: Mutant) -> list[str]:
        """Those to ask, in the order in which to ask them."""
        if mutant.file != self.file:
            self.file = mutant.file
            self.by_line = self.lines.get_data().contexts_by_lineno(str(mutant.file))
        here, around = self.killers[mutant.name.partition("#")[0]], self.killers[str(mutant.file)]
        through = {test for line in mutant.statement for test in self.by_line.get(line, [])}
        through = through or {test for line in mutant.function for test in self.by_line.get(line, [])}
        through.intersection_update(self.seconds)
        tests, spent = [], 0.0
        for test in sorted(through, key=lambda test: (-here[test], -around[test], self.seconds[test])):
            spent += self.seconds[test]
            if spent > PATIENCE:
                break
            tests.append(test)
        return tests

    def try_all(self, asked: list[Mutant]) -> None:
        waiting = [Attempt(mutant, None, "") for mutant in reversed(asked)]
        running: dict[int, tuple[Attempt, mmap.mmap, float]] = {}
        count: Counter[str] = Counter()
        while waiting or running:
            if waiting and len(running) < CHILDREN:
                attempt = waiting.pop()
                if attempt.tests is None:
                    attempt = attempt._replace(tests=self.tests_of(attempt.mutant))
                at = mmap.mmap(-1, 4)  # the number of the test that the child is at
                if not (pid := os.fork()):
                    self.child(attempt, at)
                running[pid] = attempt, at, time.monotonic()
                continue
            pid, status = os.wait()
            (mutant, tests, suspect), at, begun = running.pop(pid)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # what its tests have started
            shutil.rmtree(BUILD / "tmp" / str(pid), ignore_errors=True)
            assert tests is not None
            here = int.from_bytes(at, "little")
            if os.WIFEXITED(status) and os.WEXITSTATUS(status) == NO_MUTANT:
                self.results[mutant.name] = "the same"
                continue
            if not status:
                result = "survives" if tests else "no test"
            elif os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF:
                result = "timeout"
            elif tests[here] != suspect and time.monotonic() - begun > DOUBT:  # that test once more, then the rest
                waiting.append(Attempt(mutant, tests[here:], tests[here]))
                continue
            else:
                result = "timeout" if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM else "killed"
                for place in (mutant.name.partition("#")[0], str(mutant.file)):
                    self.killers[place][tests[here]] += 1
            self.results[mutant.name] = result
            count[result] += 1
            if result in LIVE or not count.total() % 200:
                print(time.strftime("%H:%M:%S"), mutant.name, result, dict(count), flush=True)
                self.save()

    def child(self, attempt: Attempt, at: mmap.mmap) -> None:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(null, descriptor)
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(BUILD / "tmp" / str(os.getpid()))
        (BUILD / "tmp" / str(os.getpid())).mkdir(parents=True)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        tests = attempt.tests or []
        items = [self.items[test] for test in tests]
        self.outcomes = None
        try:
            for cache in self.caches:
                cache.cache_clear()
            if not change(attempt.mutant, self.functions[str(attempt.mutant.file)]):
                os._exit(NO_MUTANT)
        except (SyntaxError, ValueError):
            os._exit(NO_MUTANT)
        try:
            for number, item in enumerate(items):
                at[:] = number.to_bytes(4, "little")
                seconds = self.seconds[item.nodeid]
                signal.setitimer(signal.ITIMER_PROF, 0.5 + 10 * seconds)  # of the processor
                signal.setitimer(signal.ITIMER_REAL, 4 + 10 * seconds)
                following = items[number + 1] if number + 1 < len(items) else None
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        except BaseException:
            os._exit(1)
        os._exit(0)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> None:
        if self.outcomes is None and call.excinfo and not call.excinfo.errisinstance(pytest.skip.Exception):
            os._exit(1)  # before a report is made, which takes longer than the test

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self.outcomes is not None:
            self.outcomes.add(report.outcome)

    def save(self) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.results, indent=0))
        new.replace(self.path)

    def tell(self, found: list[Mutant]) -> None:
        """The numbers of each module, as rows of the table in docs/testing.md, and the survivors."""
        modules: dict[str, Counter[str]] = defaultdict(Counter)
        with self.path.with_suffix(".diff").open("w", encoding="utf-8") as survivors:
            for mutant in found:
                result = self.results.get(mutant.name, "not tried")
                if result == "the same":
                    continue
                modules[str(mutant.file.relative_to(self.package).with_suffix(""))][result] += 1
                if result in LIVE:
                    source = mutant.file.read_text(encoding="utf-8")
                    lines = difflib.unified_diff(source.splitlines(), mutant.code().splitlines(), lineterm="", n=2)
                    print(f"# {mutant.name}: {result}", *list(lines)[2:], "", sep="\n", file=survivors)
        modules["together"] = sum(modules.values(), Counter())
        for module, count in modules.items():
            live = sum(count[result] for result in LIVE)
            numbers = count.total(), count.total() - count["not tried"], count["killed"], count["timeout"], live
            print(f"| `{module}` |", " | ".join(map(str, numbers)), "|")


def main() -> None:
    part, *names = sys.argv[1:]
    BUILD.mkdir(parents=True, exist_ok=True)
    elsewhere = [f"test_{name}" for name in ELSEWHERE.split()]
    files = [
        str(file)
        for file in sorted(ROOT.glob("tests/test_*.py"))
        if not any(f"{file.stem}_".startswith(f"{name}_") for name in elsewhere)
    ]
    options = "-s -q -p no:xdist -p no:cacheprovider -o timeout=0 --transport blocking --transport asyncio"
    os.chdir(ROOT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell ignores for what runs in the background
    sys.exit(pytest.main([*options.split(), *files, "conformance/packetcore_conformance"], plugins=[Run(part, names)]))


if __name__ == "__main__":
    main()
