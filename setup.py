"""The optional C extension; all else stands in pyproject.toml.

Where it cannot be built, for want of a compiler say, the package installs without it. It is
not tried with PACKETCORE_PURE=1 in the environment, nor where it is known not to fit: a
Python that is not CPython, and a free-threaded one, whose lack of a lock it does not allow for.
"""

import os
import platform
import sysconfig

from setuptools import Extension, setup

fits = platform.python_implementation() == "CPython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
wanted = os.environ.get("PACKETCORE_PURE", "0") in ("", "0")

parts = [f"packetcore/_c/{name}" for name in sorted(os.listdir("packetcore/_c"))]
extension = Extension("packetcore._speedups", ["packetcore/_speedups.c"], depends=parts, optional=True)

setup(ext_modules=[extension] if fits and wanted else [])
