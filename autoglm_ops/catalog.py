"""A name for every variant: built-ins, and what other packages offer through entry points.

A variant is a new file and one line in a catalog, never an `if` in the middle (style.md).
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from autoglm_ops.errors import UsageError


class Catalog:
    """Names to factories. A factory is given as `"package.module:attribute"` and imported only when asked for.

    Example:
        >>> Catalog("reader", {"jsonl": "autoglm_ops.data.readers.jsonl:read"}).names()
        ['jsonl']
    """

    def __init__(self, kind: str, builtin: dict[str, str], group: str | None = None) -> None:
        self.kind = kind
        self._targets = dict(builtin)
        self._group = group

    def names(self) -> list[str]:
        """Every known name, sorted."""
        return sorted({*self._targets, *self._offered()})

    def get(self, name: str) -> Callable[..., Any]:
        """The factory called `name`. Raises UsageError that names the nearest known one."""
        target = self._targets.get(name) or self._offered().get(name)
        if target is None:
            near = get_close_matches(name, self.names(), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(self.names())}"
            raise UsageError(f"unknown {self.kind} {name!r}; {hint}")
        module, _, attribute = target.partition(":")
        factory: Callable[..., Any] = getattr(import_module(module), attribute)
        return factory

    def add(self, name: str, target: str) -> None:
        """Register one more. A second meaning for a name is an error."""
        if self._targets.get(name, target) != target:
            raise UsageError(f"{self.kind} {name!r} is already {self._targets[name]}; choose another name")
        self._targets[name] = target

    def _offered(self) -> dict[str, str]:
        return _of_group(self._group) if self._group else {}


@cache
def _of_group(group: str) -> dict[str, str]:
    """Read once: it looks into every installed package, 9 ms here, and packages do not come and go under a process."""
    return {point.name: point.value for point in entry_points(group=group)}
