"""What a bucket answers, and AWS settings that cannot be: which error it is, in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import pytest
from botocore.exceptions import ClientError, ParamValidationError

from autoglm_ops.errors import AutoGLMError, TryAgain, UsageError
from autoglm_ops.store import open_store
from autoglm_ops.store.patience import patiently
from autoglm_ops.store.s3 import S3Store


def answered(code: str, status: int, call: str = "GetObject") -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, call)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (answered("ExpiredToken", 400), TryAgain, "the AWS keys have expired"),
        (answered("ExpiredTokenException", 403), TryAgain, "the AWS keys have expired"),
        (answered("RequestExpired", 400), TryAgain, "the AWS keys have expired"),
        (answered("NoSuchBucket", 404), UsageError, "there is no such bucket"),
        (answered("InvalidAccessKeyId", 403), UsageError, "access denied"),
        (ParamValidationError(report='Invalid bucket name "a b"'), UsageError, "check the names of the bucket"),
        (answered("NotImplemented", 400), AutoGLMError, "check the address"),
    ],
)
def test_what_is_wrong_is_said_at_once_and_in_its_own_class(error: Exception, kind: type[AutoGLMError], said: str) -> None:
    """All but the keys that are wrong had ended with exit 1, a bug, and with advice about the address."""
    asked = []

    def attempt() -> NoReturn:
        asked.append(1)
        raise error

    with pytest.raises(AutoGLMError, match=said) as caught:
        patiently(attempt, "s3://b/k", 60)
    assert type(caught.value) is kind and len(asked) == 1


def test_keys_that_expired_are_told_by_a_head_too(tmp_path: Path) -> None:
    """The store looks first, and an answer to HEAD has no body: its code is a bare 400."""

    class Expired:
        def head_object(self, **about: Any) -> NoReturn:
            raise answered("400", 400, "HeadObject")

        def get_object(self, **about: Any) -> NoReturn:
            raise answered("ExpiredToken", 400)

    with pytest.raises(TryAgain, match="expired"):
        S3Store(Expired(), "b", "").has("0" * 64)


@pytest.mark.parametrize(
    ("name", "value"),
    [("AWS_ENDPOINT_URL", "localhost:9000"), ("AWS_ENDPOINT_URL", "http://u:canary@[x"), ("AWS_PROFILE", "canary")],
)
def test_aws_settings_that_cannot_be_are_a_usage_error(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They had been a traceback, with whatever the address holds."""
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=name) as caught:
        open_store("s3://models/x", tmp_path)
    assert "canary" not in str(caught.value) and caught.value.__cause__ is None


def test_a_bucket_that_cannot_be_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with pytest.raises(UsageError, match="check the names of the bucket"):
        open_store("s3://Bad Bucket!/x", tmp_path).has("0" * 64)
