"""Write resolved overrides into params.yaml, comments kept, so that a stage, DVC and a reader see one truth."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from autoglm_ops.contracts.record import write_text
from autoglm_ops.errors import SettingsError
from autoglm_ops.logs import without_password
from autoglm_ops.settings.layers import resolve


def write_resolved(path: Path, tree: dict[str, Any], origin: Mapping[str, str]) -> list[str]:
    """Put every key of `tree` that an override set into the file. Returns those keys; none leaves the file untouched."""
    resolve(tree, origin)
    keys = [key for key, source in origin.items() if source != path.name and not _holds_password(_get(tree, key), key, source)]
    if not keys:
        return []
    yaml = YAML(typ="rt")  # round trip: comments kept, and no tag makes an object of a class
    yaml.preserve_quotes = True
    yaml.width = 128
    document = yaml.load(path.read_text(encoding="utf-8"))
    for key in keys:
        _put(document, key, _get(tree, key))
    buffer = io.StringIO()
    yaml.dump(document, buffer)
    write_text(path, buffer.getvalue())
    return keys


def _holds_password(value: Any, key: str, source: str) -> bool:
    """Whether it is a URL with a password, which comes by environment, stays there, and is in no file (threats F28)."""
    if not isinstance(value, str) or without_password(value) == value:
        return False
    if not source.startswith("$"):
        raise SettingsError(f"{key} ({source}) holds a password, and would be kept in records; give it by environment instead")
    return True


def _split(key: str) -> list[str]:
    return ["tune", "space", key.removeprefix("tune.space.")] if key.startswith("tune.space.") else key.split(".")


def _get(tree: Mapping[str, Any], key: str) -> Any:
    node: Any = tree
    for part in _split(key):
        node = node[part]
    return node


def _put(document: Any, key: str, value: Any) -> None:
    *parents, leaf = _split(key)
    for parent in parents:
        document = document.setdefault(parent, {})
    document[leaf] = value
