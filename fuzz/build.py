"""The extension in C built for fuzzing, with the best that is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / ".fuzz" / "build"
"""A copy of the package, with the extension in it."""

STUBS = """
void __sanitizer_cov_trace_cmpf(float one, float other) { (void)one; (void)other; }
void __sanitizer_cov_trace_cmpd(double one, double other) { (void)one; (void)other; }
"""
"""What gcc tells of and libFuzzer does not ask for."""

SANITIZERS = "-g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined"


@dataclass(frozen=True)
class Build:
    """How the compiled code is fuzzed."""

    how: str
    """In words."""

    missing: str = ""
    """What would make it better, in one line."""

    environment: dict[str, str] = field(default_factory=dict)
    """What its process needs."""

    options: tuple[str, ...] = ()
    """What libFuzzer is to be told."""


def build(package: Path = ROOT / "packetcore", folder: Path = BUILT) -> Build:
    """Build the extension with the sanitizers and what guides the fuzzer: by clang its edges, by gcc its comparisons;
    where neither is, that which is installed is fuzzed.

    Args:
        package: whose sources.
        folder: where the copy is made.
    """
    atheris = find_spec("atheris")
    if atheris is None or atheris.origin is None:
        return Build("as it is installed", "atheris is missing: pip install -r requirements-fuzz.txt")
    runtime = Path(atheris.origin).parent.parent / "asan_with_fuzzer.so"
    ways = (
        ("clang", "-fsanitize=fuzzer-no-link", "edges", ()),
        ("gcc", "-fsanitize-coverage=trace-cmp", "comparisons", ("-use_value_profile=1",)),
    )
    missing = ""
    for compiler, instrumentation, guide, options in ways:
        path = os.environ.get(compiler.upper()) or shutil.which(compiler)
        if path and runtime.is_file() and _compile([path, *SANITIZERS.split(), instrumentation], package, folder):
            how = f"by {path}, with AddressSanitizer and UndefinedBehaviorSanitizer, guided by its {guide}"
            return Build(how, missing, _environment(folder, runtime), options)
        missing = "clang is missing (on Debian: apt install clang), which would guide the fuzzer by the edges of the C"
    shutil.rmtree(folder, ignore_errors=True)
    return Build(
        "as it is installed, without sanitizers", "clang and gcc are missing: nothing guides the fuzzer in the C"
    )


def _compile(command: list[str], package: Path, folder: Path) -> bool:
    target = folder / "packetcore" / f"_speedups{sysconfig.get_config_var('EXT_SUFFIX')}"
    stamp = folder / "command"
    if stamp.is_file() and stamp.read_text() == " ".join(command) and target.stat().st_mtime > _newest(package):
        return True
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(package, folder / "packetcore", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__", "_c"))
    source, compiled = str(package / "_speedups.c"), str(folder / "speedups.o")
    include = f"-I{sysconfig.get_path('include')}"
    flags = ("-std=c11", "-fPIC", "-fno-sanitize-recover=undefined", include)
    # Linked without the sanitizers: their runtime is that of atheris, which is loaded before all else.
    steps = (
        ([*command, *flags, "-c", source, "-o", compiled], ""),
        ([command[0], "-shared", "-fPIC", compiled, "-x", "c", "-", "-o", str(target)], STUBS),
    )
    for step, text in steps:
        done = subprocess.run(step, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.stderr.write(f"{' '.join(step)}\n{done.stderr}")
            return False
    stamp.write_text(" ".join(command))
    return True


def _newest(package: Path) -> float:
    return max(each.stat().st_mtime for kind in ("*.py", "*.c", "*.h") for each in package.rglob(kind))


def _environment(folder: Path, runtime: Path) -> dict[str, str]:
    return {
        "LD_PRELOAD": str(runtime),
        # Python keeps some memory to its end. Its own allocator would hide a byte too many inside one of its pools.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:malloc_context_size=4",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
    }
