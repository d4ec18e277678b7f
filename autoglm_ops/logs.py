"""Structured logs: one JSON object per line on stderr (ECS field names), run and stage on each line.

`configure()` is called once by the CLI. Everything else uses `logging.getLogger(__name__)`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time

_SECRET = re.compile(
    r"(?i)\b(authorization|api[_-]?key|password|passwd|secret|token|aws_secret_access_key)(\"?\s*[:=]\s*\"?)(bearer\s+)?[^\s\",}]+"
)
_ASKED = re.compile(r"(?i)([?&][^=&\s]*pass(?:word|wd)[^=&\s]*=)[^&#\s]+")
_KNOWN = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "taskName"}


def redact(text: str) -> str:
    """`text` with the value of anything that names itself a secret replaced (threats F28)."""
    return _SECRET.sub(r"\1\2***", text)


def without_password(url: str) -> str:
    """`url` with *** for its password, and for one that its query names; what is no URL is left as it is (threats F28).

    A database's password may hold / and @ as they are, which SQLAlchemy takes: it counts up to the last @, lest a part of it be shown.
    """
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url
    authority = rest.split("/", 1)[0] if scheme.lower() in ("http", "https") else rest  # where a path may hold an @
    user, _, after = authority.partition(":")
    password, _, _ = after.rpartition("@")
    if password and "/" not in user:
        rest = f"{user}:***{rest[len(user) + 1 + len(password) :]}"
    return _ASKED.sub(r"\1***", f"{scheme}://{rest}")


class EcsFormatter(logging.Formatter):
    """One JSON object per record, with the Elastic Common Schema's names."""

    def __init__(self, labels: dict[str, str]) -> None:
        super().__init__()
        self._labels = labels

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "@timestamp": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "log.level": record.levelname.lower(),
            "log.logger": record.name,
            "message": redact(record.getMessage()),
            **self._labels,
        }
        line.update({key: value for key, value in record.__dict__.items() if key not in _KNOWN})
        if record.exc_info:
            line["error.stack_trace"] = redact(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(*, run: str = "", stage: str = "", level: str | None = None, plain: bool | None = None) -> None:
    """Send the root logger to stderr. A terminal gets short plain lines; everything else gets JSON lines."""
    plain = sys.stderr.isatty() if plain is None else plain
    handler = logging.StreamHandler(sys.stderr)
    labels = {key: value for key, value in (("labels.run", run), ("labels.stage", stage)) if value}
    handler.setFormatter(logging.Formatter("%(message)s") if plain else EcsFormatter(labels))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level or os.environ.get("AUTOGLM_LOG_LEVEL", "INFO"))
    for noisy in (
        "urllib3",
        "botocore",
        "alembic",
        "matplotlib",
        "git",
        "filelock",
        "fsspec",
        "httpx",
        "dvc",
        "great_expectations",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)
