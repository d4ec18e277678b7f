"""Dotted settings laid over a settings tree: how a trial's or a report's choices become settings again."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any


def overlay(tree: Mapping[str, Any], choices: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `tree` with each `section.key` of `choices` set. The caller checks the result against the schema."""
    result = deepcopy(dict(tree))
    for dotted, value in choices.items():
        section, _, key = dotted.partition(".")
        result[section][key] = value
    return result
