"""Every error the platform raises on purpose, and the exit code each one ends the process with.

    AutoGLMError                 1   a bug, or a fault nobody foresaw
    ├── UsageError               2   the command line or the call is wrong
    │   └── SettingsError        2   params.yaml, --set, --config or the environment is wrong
    ├── Refused                  3   the evidence does not allow it; trying again changes nothing
    │   ├── BadData              3   data over its error budget, or no data
    │   ├── Tampered             3   bytes that differ from their recorded digest
    │   └── BudgetSpent          3   a hard stop in time, trials or money
    └── TryAgain                 75  something outside is away; a later attempt may succeed

Orchestrators act on the code alone: 3 is never retried, 75 is retried with back-off (design §6).
A message says what happened, with the value, the rule, and what to do.
"""

from __future__ import annotations


class AutoGLMError(Exception):
    """Base of the tree."""

    exit_code = 1


class UsageError(AutoGLMError):
    """The command line or the call is wrong."""

    exit_code = 2


class SettingsError(UsageError):
    """A setting is unknown, of the wrong type or out of range. The message names key, value, rule and file."""


class Refused(AutoGLMError):
    """The evidence does not allow it. `reasons` can be counted; the first word of each is a stable code."""

    exit_code = 3

    def __init__(self, message: str, reasons: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.reasons = reasons or (message,)


class BadData(Refused):
    """Data over its error budget, truncated, or not there."""


class Tampered(Refused):
    """Bytes that differ from the digest in their record."""


class BudgetSpent(Refused):
    """A hard stop in seconds, trials or money was reached."""


class TryAgain(AutoGLMError):
    """Something outside is away. A later attempt may succeed."""

    exit_code = 75
