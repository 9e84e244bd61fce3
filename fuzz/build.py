"""The extension in C built for fuzzing, with the best that is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / ".fuzz" / "build"
"""A copy of the package, with the extension in it."""

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


def build(package: Path = ROOT / "packetcore", folder: Path = BUILT) -> Build:
    """Build the extension: by clang with the fuzzer's instrumentation and the sanitizers', by gcc with the latter
    alone, else not at all, to fuzz the one that is installed.

    Args:
        package: whose sources.
        folder: where the copy is made.
    """
    atheris = find_spec("atheris")
    preload = Path(atheris.origin or "").parent.parent / "asan_with_fuzzer.so" if atheris else Path()
    clang = os.environ.get("CLANG") or shutil.which("clang")
    if (
        clang
        and preload.is_file()
        and _compile([clang, *SANITIZERS.split(), "-fsanitize=fuzzer-no-link"], package, folder)
    ):
        return Build(
            f"by {clang} with the fuzzer's instrumentation, AddressSanitizer and UndefinedBehaviorSanitizer",
            environment=_environment(folder, [preload]),
        )
    missing = "clang is missing (Debian: apt install clang libclang-rt-dev): the C is fuzzed without its coverage"
    gcc = shutil.which("gcc")
    libraries = [_library(gcc, name) for name in ("libasan.so", "libubsan.so")] if gcc else [None]
    if gcc and all(libraries) and _compile([gcc, *SANITIZERS.split()], package, folder):
        return Build(
            "by gcc with AddressSanitizer and UndefinedBehaviorSanitizer; what guides is the coverage of the Python",
            missing,
            _environment(folder, [library for library in libraries if library is not None]),
        )
    shutil.rmtree(folder, ignore_errors=True)
    return Build("as it is installed, without sanitizers", f"{missing}, and gcc's sanitizers are missing too")


def _compile(command: list[str], package: Path, folder: Path) -> bool:
    target = folder / "packetcore" / f"_speedups{sysconfig.get_config_var('EXT_SUFFIX')}"
    stamp = folder / "command"
    if stamp.is_file() and stamp.read_text() == " ".join(command) and target.stat().st_mtime > _newest(package):
        return True
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(package, folder / "packetcore", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__", "_c"))
    arguments = [
        *command,
        *("-std=c11", "-fPIC", "-shared", "-fno-sanitize-recover=undefined"),
        f"-I{sysconfig.get_path('include')}",
        *(str(package / "_speedups.c"), "-o", str(target)),
    ]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(f"{' '.join(arguments)}\n{done.stderr}")
        return False
    stamp.write_text(" ".join(command))
    return True


def _newest(package: Path) -> float:
    return max(each.stat().st_mtime for kind in ("*.py", "*.c", "*.h") for each in package.rglob(kind))


def _library(gcc: str, name: str) -> Path | None:
    found = subprocess.run([gcc, f"-print-file-name={name}"], capture_output=True, text=True, check=False)
    path = Path(found.stdout.strip())
    return path if path.is_absolute() else None


def _environment(folder: Path, libraries: Iterable[Path]) -> dict[str, str]:
    return {
        "LD_PRELOAD": ":".join(map(str, libraries)),
        # Python keeps some memory to its end. Its own allocator would hide a byte too many inside one of its pools.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:malloc_context_size=4",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
    }
