"""What can go wrong between us and a bucket: lost replies, truncated bodies, wrong bytes, a wrong key, a server that is away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from s3_server import BUCKET

from autoglm_ops.contracts.record import digest_path
from autoglm_ops.errors import AutoGLMError, Tampered, TryAgain, UsageError
from autoglm_ops.store import open_store
from autoglm_ops.store.s3 import S3Store

boto3 = pytest.importorskip("boto3")


class Faulty:
    """A real client whose replies get lost: every `every`-th call is done and then reported as failed."""

    def __init__(self, client: Any, error: Exception, methods: set[str], every: int = 1) -> None:
        self._client, self._error, self._methods, self._every, self.calls, self.left = client, error, methods, every, 0, 2

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client, name)
        if name not in self._methods:
            return real

        def call(**arguments: Any) -> Any:
            answer = real(**arguments)
            self.calls += 1
            if self.left and self.calls % self._every == 0:
                self.left -= 1
                raise self._error
            return answer

        return call


@pytest.fixture
def client(s3: str) -> Any:
    return boto3.client("s3")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"0123456789" * 30_000)
    return tmp_path / "model"


def timeout() -> Exception:
    from botocore.exceptions import ReadTimeoutError

    return ReadTimeoutError(endpoint_url="http://127.0.0.1")


def test_a_put_whose_reply_was_lost_is_settled_by_looking(client: Any, folder: Path, tmp_path: Path) -> None:
    faulty = Faulty(client, timeout(), {"put_object"})
    store = S3Store(faulty, BUCKET, tmp_path.name)
    digest = store.put(folder)
    assert faulty.left == 0 and faulty.calls == 2, "the two objects were each sent once, though both replies were lost"
    assert digest_path(store.get(digest, tmp_path / "got")) == digest


def test_passing_errors_are_retried(client: Any, folder: Path, tmp_path: Path) -> None:
    from botocore.exceptions import ClientError

    slow = ClientError({"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "GetObject")
    digest = S3Store(client, BUCKET, tmp_path.name).put(folder)
    store = S3Store(Faulty(client, slow, {"get_object", "head_object"}), BUCKET, tmp_path.name)
    assert digest_path(store.get(digest, tmp_path / "got")) == digest


def test_wrong_bytes_are_refused_on_read_and_on_write(client: Any, folder: Path, tmp_path: Path) -> None:
    store = S3Store(client, BUCKET, tmp_path.name)
    digest = store.put(folder)
    key = f"{tmp_path.name}/files/{digest_path(folder / 'weights')}"
    client.put_object(Bucket=BUCKET, Key=key, Body=b"x" * 300_000)
    with pytest.raises(Tampered, match="weights"):
        store.get(digest, tmp_path / "got")
    assert not (tmp_path / "got").exists()
    (folder / "more").write_text("so that the folder is another one, with the same file in it")
    with pytest.raises(Tampered, match="other bytes"):
        store.put(folder)


def test_a_server_that_is_away_means_try_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    store = open_store("s3://models/x", tmp_path)
    assert isinstance(store, S3Store)
    store._budget = 0.5
    with pytest.raises(TryAgain, match="does not answer"):
        store.put(folder)


def test_a_wrong_key_and_a_wrong_bucket_are_said_at_once(
    client: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(AutoGLMError):
        open_store("s3://no-such-bucket-here/x", tmp_path).get("0" * 64, tmp_path / "got")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret")
    with pytest.raises(UsageError, match="access denied") as caught:
        open_store("s3://models/x", tmp_path).put(folder)
    assert "canary-secret" not in str(caught.value)


def test_a_uri_without_a_bucket_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names no bucket"):
        open_store("s3://", tmp_path)


def test_what_is_asked_of_a_bucket_that_is_not_there_says_so(s3: str, tmp_path: Path) -> None:
    store = open_store(f"s3://{BUCKET}-elsewhere/prefix", tmp_path)
    with pytest.raises(UsageError, match="there is no such bucket"):
        store.get("0" * 64, tmp_path / "back")
