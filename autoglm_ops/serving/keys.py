"""API keys: a file with one key a line, held only as digests, compared in constant time (threats F30, F31)."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import tempfile
from pathlib import Path

from autoglm_ops.errors import UsageError

MIN_LENGTH = 16


class Keys:
    """Knows whether a key is one of those in its file, and not what they are."""

    def __init__(self, keys: list[str]) -> None:
        self._digests = tuple(hashlib.sha256(key.encode()).digest() for key in keys)

    def admit(self, headers: list[tuple[bytes, bytes]]) -> bool:
        """Whether raw request headers carry, once, `Authorization: Bearer KEY`. Every key is compared, as bytes, whatever came."""
        values = [value for name, value in headers if name.lower() == b"authorization"]
        scheme, _, key = (values[0] if len(values) == 1 else b"").partition(b" ")
        digest = hashlib.sha256(key.strip()).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return scheme.lower() == b"bearer" and any(matches)


def load(path: Path) -> Keys:
    """The keys in a file, one a line; `#` starts a comment. Raises UsageError; no message holds a key."""
    try:
        lines = path.read_bytes().decode("ascii").splitlines()
    except OSError as error:
        raise UsageError(f"the key file {path} cannot be read: {error.strerror}; name one with --key-file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the key file {path} must be ASCII, but is not at byte {error.start}") from error
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1)]
    keys = [(number, line) for number, line in numbered if line and not line.startswith("#")]
    if not keys:
        raise UsageError(f"the key file {path} holds no key; write one of at least {MIN_LENGTH} characters, or delete it")
    for number, key in keys:
        if len(key) < MIN_LENGTH or " " in key or "\t" in key:
            raise UsageError(f"{path}:{number}: a key must have at least {MIN_LENGTH} characters and no blanks")
    return Keys([key for _, key in keys])


def load_or_make(path: Path) -> Keys:
    """The keys in `path`, which is made, with mode 0600, on first use. Raises UsageError when others may read it."""
    if not path.exists():
        _make(path)
    if path.stat().st_mode & 0o077:
        raise UsageError(f"{path} may be read by others than its owner; run `chmod 600 {path}`")
    return load(path)


def _make(path: Path) -> None:
    """Whole or not at all, and never over another's: two servers that start together share the first one's key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".api-key.")  # 0600 from the start
    staged = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"sk-autoglm-{secrets.token_urlsafe(32)}\n")
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(staged)
    except FileExistsError:
        return
    finally:
        staged.unlink(missing_ok=True)
