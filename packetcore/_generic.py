"""Type variables with a default (PEP 696), for type checkers: Python itself knows them from 3.13 on."""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVar
else:

    def TypeVar(name, *, default):  # noqa: N802
        return typing.TypeVar(name)
