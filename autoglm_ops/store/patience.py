"""What passes between us and a bucket is tried again, under a budget; what does not is said at once, in one message."""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Callable
from typing import TypeVar

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
)

from autoglm_ops.errors import AutoGLMError, TryAgain, UsageError

BUDGET_SECONDS = 60.0
DAMAGED = frozenset({"BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"})
"""The server got other bytes than we hashed."""
_PASSING = DAMAGED | {
    "RequestTimeout",
    "SlowDown",
    "InternalError",
    "ServiceUnavailable",
    "ThrottlingException",
    "ConditionalRequestConflict",
}
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
T = TypeVar("T")


def patiently(attempt: Callable[[], T], where: str, budget: float) -> T:
    """Retry what passes, with full jitter, until the budget is spent: then TryAgain. What does not pass is said at once."""
    end, delay = time.monotonic() + budget, 0.1
    while True:
        try:
            return attempt()
        except (ClientError, BotoCoreError) as error:
            if not _passes(error):
                raise _refusal(error, where) from error
            if time.monotonic() + delay > end:
                damaged = isinstance(error, ClientError) and code(error) in DAMAGED
                fault = "gets other bytes than were sent" if damaged else "does not answer"
                raise TryAgain(f"{where} {fault} ({_said(error)}) after {budget:g} s; try again") from error
        time.sleep(random.uniform(0, delay))
        delay = min(2 * delay, 8.0)


def _refusal(error: ClientError | BotoCoreError, where: str) -> AutoGLMError:
    """Expired keys are something to try again: the next process is given fresh ones where a file, a role or a Secret holds them, while
    this one's stay what they are, so they are not waited for here."""
    if isinstance(error, ClientError) and code(error) in _EXPIRED:
        return TryAgain(
            f"{where}: the AWS keys have expired ({_said(error)}); renew them (AWS_SESSION_TOKEN, AWS_PROFILE), try again"
        )
    if isinstance(error, ParamValidationError):
        return UsageError(f"{where} cannot be in S3 ({_said(error)}); check the names of the bucket and the prefix")
    if isinstance(error, ClientError) and code(error) == "NoSuchBucket":
        return UsageError(f"{where}: there is no such bucket; check its name and AWS_ENDPOINT_URL, or make it first")
    if isinstance(error, NoCredentialsError) or (isinstance(error, ClientError) and status(error) in {401, 403}):
        return UsageError(f"{where}: access denied ({_said(error)}); check the AWS keys, the bucket and its policy")
    return AutoGLMError(f"{where}: {_said(error)}; check the address and the bucket")


def code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _passes(error: ClientError | BotoCoreError) -> bool:
    if isinstance(error, ClientError):
        return code(error) in _PASSING or status(error) >= 500 or status(error) == 429
    return isinstance(error, HTTPClientError | ConnectionError | IncompleteReadError)


def _said(error: Exception) -> str:
    """The error in a word or two; boto's own text can hold the whole request."""
    return f"{type(error).__name__} {code(error)}".strip() if isinstance(error, ClientError) else type(error).__name__


def checksum(digest: bytes) -> str:
    """As S3 writes a sha256."""
    return base64.b64encode(digest).decode()
