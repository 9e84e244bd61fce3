"""Look for what a wrong byte in the codec in C would do: corruption, undefined behaviour, leaks.

python tests/sanitize.py              all of it
python tests/sanitize.py sanitizers   hostile streams under ASan and UBSan (needs gcc or clang)
python tests/sanitize.py leaks        10 million packets, whose memory has to come back
python tests/sanitize.py allocations  each allocation fails once
python tests/sanitize.py warnings     a build with all warnings, each an error
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import itertools
import os
import random
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packetcore import LocalProtocolError, Packet
from packetcore._codec import encode as python_encode
from packetcore._decoder import Decoder as PythonDecoder

if TYPE_CHECKING:
    from tests.c_cases import Case

ROOT = Path(__file__).resolve().parent.parent
STREAMS = 5_000
PACKETS = 10_000_000
STEP = PACKETS // 10


STRICT = (
    "-Wall -Wextra -Wconversion -Wsign-conversion -Wshadow -Wundef -Wpointer-arith -Wstrict-prototypes -Wvla -Werror"
)
"""Of our own code only: Python's headers are a system's."""


def compilers() -> list[str]:
    """Those to build with: `CC` alone where it is set, else all of the usual ones that are there."""
    given = os.environ.get("CC")
    return [given] if given else [name for name in ("gcc", "clang") if shutil.which(name)]


def compile_with(flags: str, folder: Path, compiler: str | None = None) -> None:
    """Build the extension into a copy of the package.

    Raises:
        CalledProcessError: the compiler refused it, or warned where warnings are errors.
    """
    package = folder / "packetcore"
    shutil.copytree(ROOT / "packetcore", package, ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__", "_c"))
    with_options = shlex.split(compiler or os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    target = package / f"_speedups{sysconfig.get_config_var('EXT_SUFFIX')}"
    source = ROOT / "packetcore" / "_speedups.c"
    include = ["-isystem", sysconfig.get_path("include")]
    command = [*with_options, "-std=c11", "-fPIC", "-shared", *flags.split(), *include, str(source), "-o", str(target)]
    subprocess.run(command, check=True)


def warnings() -> None:
    """Build with every warning an error, and once more without what only some compilers have."""
    for compiler, more in itertools.product(compilers(), ("", " -DONLY_AVX2", " -DONLY_SSE2", " -DPLAIN_C", " -O0")):
        with tempfile.TemporaryDirectory() as folder:
            compile_with(f"-O3 {STRICT}{more}", Path(folder), compiler)
            again(Path(folder), "hostile", "500")
    say(f"no warnings of {' or '.join(compilers())} at -Wall -Wextra -Wconversion; in plain C too")


def sanitizers() -> None:
    """Hostile streams and failing allocations under both sanitizers, with the kernels of any processor."""
    for more in ("", " -DONLY_AVX2", " -DONLY_SSE2"):
        sanitize("-g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover" + more)
    say(f"{STREAMS} hostile streams under ASan and UBSan, and failing allocations: clean with each kernel")


def sanitize(flags: str) -> None:
    """Build with sanitizers, and run what they are to watch."""
    with tempfile.TemporaryDirectory() as folder:
        compile_with(flags, Path(folder))
        compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
        libraries = [
            subprocess.run([*compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout
            for name in ("libasan.so", "libubsan.so")
        ]
        # The interpreter keeps some memory to its end: leaks are counted in a way of their own.
        # Python's own allocator would hide a byte too many inside one of its pools.
        environment = {
            "LD_PRELOAD": ":".join(map(str.strip, libraries)),
            "ASAN_OPTIONS": "detect_leaks=0",
            "PYTHONMALLOC": "malloc",
        }
        again(Path(folder), "hostile", str(STREAMS), **environment)
        again(Path(folder), "allocations", **environment)
        again(Path(folder), "tests", **environment)


def again(folder: Path, *arguments: str, **environment: str) -> None:
    """Run this script once more, with the package in `folder`."""
    paths = os.pathsep.join([str(folder), str(ROOT)])
    environment = {**os.environ, **environment, "PYTHONPATH": paths, "SANITIZE_FOLDER": str(folder)}
    subprocess.run([sys.executable, __file__, *arguments], env=environment, check=True, cwd=folder)


def tests() -> None:
    """The tests of misuse and of odd buffers."""
    import pytest

    from packetcore import _speedups

    assert _speedups.__file__.startswith(os.environ["SANITIZE_FOLDER"])
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        "pythonpath=",
        "--rootdir",
        str(ROOT),
        "-c",
        str(ROOT / "pyproject.toml"),
    ]
    files = [str(ROOT / "tests" / f"test_c_{name}.py") for name in ("lifecycle", "buffers")]
    sys.exit(pytest.main([*options, *files]))


def hostile(count: int) -> None:
    """Hostile streams through both codecs, from buffers that end where their bytes end."""
    from packetcore import _speedups
    from tests.framing_twins import KINDS, compare
    from tests.hostile import hostile_stream, random_chunks
    from tests.pool_twins import compare as compare_orders

    assert _speedups.__file__.startswith(os.environ["SANITIZE_FOLDER"])
    for seed in range(count):
        rng = random.Random(seed)
        max_payload = rng.choice([0, 1, 8, 40, 200, 2_000])
        stream, packets = hostile_stream(rng, max_payload)
        for packet in packets:
            assert _speedups.encode(packet) == python_encode(packet)
        for chunks in ([stream], list(random_chunks(rng, stream))):
            c, python = _speedups.Decoder(max_payload=max_payload), PythonDecoder(max_payload=max_payload)
            for chunk in chunks:
                # A bytes object has a byte more than it shows; this has none.
                exact = memoryview(bytearray(chunk + b"\x00"))[: len(chunk)]
                assert c.feed(exact) == python.feed(chunk), f"seed {seed}"
                assert c.pending == python.pending, f"seed {seed}"
            assert c.feed_eof() == python.feed_eof(), f"seed {seed}"
        for kind in KINDS:
            compare(kind, seed)
        if seed % 10 == 0:
            compare_orders(seed)


def resident() -> int:
    """Bytes of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def leaks() -> None:
    """Decode and encode 10 million packets, good and bad: memory must not grow after the first million."""
    from packetcore import _speedups

    rng = random.Random(0)
    packets = [Packet(rng.randrange(65536), rng.randbytes(rng.choice([0, 16, 64, 700]))) for _ in range(2_000)]
    packets.append(Packet(7, rng.randbytes(200_000)))
    good = b"".join(map(python_encode, packets))
    bad = b"\xfe\x00\xfe\xfd\xfe" + good[:500] + b"\xfe" + b"\xfe\x00\x10\x00\x00\x01\xff\xff\xff\xff rest \xfe"
    chunks = [(good + bad)[at : at + 65_521] for at in range(0, len(good + bad), 65_521)]
    decoder = _speedups.Decoder()
    encode = _speedups.encode
    output = _speedups.Output(encode, 1 << 20)
    done, first, blocks = 0, 0, 0
    while done < PACKETS:
        before = done
        for chunk in chunks:
            for event in decoder.feed(chunk):
                if isinstance(event, Packet):
                    done += 1
                    id, payload, type, count = event
                    encode(event if done % 10 else Packet(id, payload, type=type)._replace(count=count))
                    output.put(event)
            (output.join if done % 2 else output.take)()
        decoder.feed(good[: rng.randrange(len(good))])
        decoder.feed_eof()
        decoder = _speedups.Decoder()
        if before < STEP <= done:
            first, blocks = resident(), sys.getallocatedblocks()
    grown, more = resident() - first, sys.getallocatedblocks() - blocks
    if grown > 4 << 20 or more > 1_000:
        sys.exit(f"{grown} bytes and {more} blocks more after {done} packets than after {STEP}")
    say(f"{done:,} packets: {grown:,} bytes and {more} blocks more at the end than after the first tenth")


def allocations() -> None:
    """Let the first allocation of each call fail, then the second and so on; and from the first on all of them.

    Each is a `MemoryError`, after which the object is as sound as before, and nothing is left behind: the
    arguments and types have as many references, and no more blocks are held once Python has set aside what it
    likes to.
    """
    from tests.c_cases import CASES

    failures = 0
    for case in CASES:
        for _ in range(200):  # what Python sets aside differs from time to time
            before = held()
            failures += fail_each(case)
            more = [after - count for after, count in zip(held(), before, strict=True)]
            # One is what has just been counted, as some references are; a leak is two, one in either way to fail.
            if more[0] <= 2 and more[1] < 20:
                break
        else:
            raise AssertionError(f"{case.name}: {more} blocks and references more each time")
    if sys.version_info < (3, 13):  # whose dict is unsound once it could not grow while a type is made
        failures += import_failures()
    assert failures > 1_000, failures
    say(f"{failures} allocations failed: a MemoryError each, and nothing is lost but what was fed or left behind")


def held() -> tuple[int, int]:
    """Blocks of memory, and with a debug build of Python references, that there are."""
    gc.collect()
    return sys.getallocatedblocks(), getattr(sys, "gettotalrefcount", int)()


def references(case: Case) -> list[int]:
    """How often what a call is given is referred to, and each type: an object of it does so."""
    from tests.c_cases import PACKET, TYPES

    inner = [each for argument in case.arguments if isinstance(argument, (list, tuple)) for each in argument]
    given = [each for each in (*case.arguments, *inner) if not isinstance(each, int)]  # anybody may refer to these
    return [sys.getrefcount(each) for each in (*given, PACKET, *TYPES.values())]


def fail_each(case: Case) -> int:
    """Make one call again and again, each time with another allocation that fails. Gives how many did."""
    from tests.c_cases import speedups

    _testcapi = importlib.import_module("_testcapi")  # of CPython alone, and not typed
    failures = 0
    for stops in (True, False):
        sound = 0
        for nth in itertools.count():
            before = references(case)
            called = case.prepare()
            owner = getattr(called, "__self__", None)
            entries = owner._entries() if isinstance(owner, speedups.Order) else None
            failed = False
            kept: list[object] = [
                [] for _ in range(100)
            ]  # all lists that Python keeps for later: none is to be had free
            _testcapi.set_nomemory(nth, nth + 1 if stops else 0)
            try:
                called(*case.arguments)
            except MemoryError:
                failed = True
            except (StopIteration, LocalProtocolError):
                pass
            finally:
                _testcapi.remove_mem_hooks()
            failures += failed
            sound = 0 if failed else sound + 1  # some do without what they did not get
            check_sound(case, owner, entries if failed else None)
            del called, owner, entries, kept
            assert references(case) == before, (case.name, nth)
            if sound == 20:
                break
    return failures


def check_sound(case: Case, owner: Any, entries: list[Any] | None) -> None:
    """See that an object on which a call failed is as good as before."""
    from tests.c_cases import speedups

    if case.sound is not None:
        # At worst the frame that this cut into is lost, never the next one.
        sent, frame = case.sound
        owner.feed_eof()
        assert owner.feed(sent * 2)[-1:] == [frame], case.name
        assert owner.pending == 0, case.name
    if isinstance(owner, speedups.Order):
        assert entries is None or owner._entries() == entries, case.name
        owner._put("last", 3000.0)
        assert owner._entries()[-1] == "last", case.name
        assert len(owner) == len(owner._entries()), case.name
    if isinstance(owner, speedups.Output):
        assert owner.size == sum(map(len, owner.take())), case.name


def import_failures() -> int:
    """Import the extension once more, with each allocation failing in its turn. Gives how many did."""
    from packetcore import _speedups

    _imp = importlib.import_module("_imp")
    _testcapi = importlib.import_module("_testcapi")
    spec = importlib.util.spec_from_file_location("packetcore._speedups", _speedups.__file__)
    assert spec is not None
    failures = sound = nth = 0
    while sound < 20:
        module = _imp.create_dynamic(spec)
        _testcapi.set_nomemory(nth, nth + 1)
        try:
            _imp.exec_dynamic(module)
        except MemoryError:
            failures += 1
            sound = -1
        finally:
            _testcapi.remove_mem_hooks()
        sound += 1
        nth += 1
    return failures


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Do what the arguments ask for."""
    match sys.argv[1:]:
        case []:
            for task in (warnings, allocations, sanitizers, leaks):
                task()
        case ["hostile", count]:
            hostile(int(count))
        case ["warnings" | "sanitizers" | "leaks" | "allocations" | "tests" as name]:
            tasks = (warnings, sanitizers, leaks, allocations, tests)
            {task.__name__: task for task in tasks}[name]()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
