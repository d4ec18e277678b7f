"""The artefact store in a bucket, and the reading of other people's buckets. The owner of boto3.

    <prefix>/files/<sha256>     one object per distinct file, so a tokenizer that ten models share is kept once
    <prefix>/folders/<digest>   a folder's listing: the text whose sha256 is the digest. Written last: what is listed is there
    <prefix>/notes/<name>       the digest of the folder that something else's name leads to

Objects are created once (`If-None-Match: *`) and never replaced. The endpoint and the keys come from the environment, as for any AWS
client (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, …), and are never written anywhere (threats F17, F28).
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
import random
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ReadTimeoutError,
)

from autoglm_ops.contracts.cluster import FRESH_SECONDS, Entry
from autoglm_ops.contracts.record import tree_text
from autoglm_ops.errors import AutoGLMError, BudgetSpent, Refused, Tampered, TryAgain, UsageError
from autoglm_ops.store.listing import (
    Listing,
    check_digest,
    check_note,
    digest_of_listing,
    lay_down,
    parse,
    parse_note,
    survey,
)

BUDGET_SECONDS = 60.0
MAX_OBJECT = 5 * 2**30  # what S3 takes in one PUT, which alone can be made conditional
_SPOOL = 64 * 2**20
_PASSING = {
    "RequestTimeout",
    "SlowDown",
    "InternalError",
    "ServiceUnavailable",
    "ThrottlingException",
    "ConditionalRequestConflict",
}
T = TypeVar("T")


def open_bucket(where: str) -> S3Store:
    """From `bucket/prefix`. Raises UsageError without a bucket."""
    bucket, _, prefix = where.partition("/")
    if not bucket:
        raise UsageError(f"store.uri s3://{where} names no bucket; write s3://BUCKET or s3://BUCKET/PREFIX")
    return S3Store(_client(), bucket, prefix.strip("/"))


def open_reader(bucket: str, requests: int) -> BucketReader:
    """For reading `bucket` with at most `requests` requests, retries included. Raises UsageError without a bucket."""
    if not bucket:
        raise UsageError("the location s3:// names no bucket; write s3://BUCKET or s3://BUCKET/PREFIX")
    return BucketReader(_client(), bucket, requests)


def _client() -> Any:
    config = Config(connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
    return boto3.session.Session().client("s3", config=config)


class S3Store:
    """`budget`: seconds that the retries of one object may take before the store counts as away."""

    def __init__(self, client: Any, bucket: str, prefix: str, budget: float = BUDGET_SECONDS) -> None:
        self._client, self._bucket, self._prefix, self._budget = client, bucket, prefix, budget

    def put(self, folder: Path) -> str:
        """Store `folder` once. Raises as `survey` does, Tampered when an object of that name has other bytes, TryAgain."""
        listing = survey(folder)
        digest = digest_of_listing(listing)
        key = self._key("folders", digest)
        if (head := self._head(key)) is not None:
            self._patiently(lambda: self._use(key, head, digest), key)
            return digest
        for name, value in listing.items():
            self._put_file(folder / name, value)
        text = tree_text(listing).encode()
        self._create(key, digest, len(text), lambda: io.BytesIO(text))
        return digest

    def get(self, digest: str, target: Path) -> Path:
        """Lay the folder down at `target`, each file checked. Raises Refused when it was never put, Tampered, TryAgain."""
        key = self._key("folders", check_digest(digest))
        if self._head(key) is None:
            raise Refused(
                f"no artefact {digest} in {self._where(key)}; register the model again, or name its store (store.uri)"
            )
        with self._download(key) as file:
            listing: Listing = parse(file.read(), digest, self._where(key))
        return lay_down(digest, listing, target, lambda name, value: self._download(self._key("files", value)))

    def has(self, digest: str) -> bool:
        return self._head(self._key("folders", check_digest(digest))) is not None

    def note(self, name: str, digest: str) -> str:
        """Keep `digest` under `name` unless something is there; returns what is. Raises Tampered, TryAgain."""
        if (found := self.noted(name)) is not None:
            return found
        text = f"{check_digest(digest)}\n".encode()
        try:
            self._create(self._key("notes", name), hashlib.sha256(text).hexdigest(), len(text), lambda: io.BytesIO(text))
        except Tampered:  # somebody noted another one in between
            if (found := self.noted(name)) is None:
                raise
            return found
        return digest

    def noted(self, name: str) -> str | None:
        """What `note` kept under `name`. Raises Tampered, TryAgain."""
        key = self._key("notes", check_note(name))
        if self._head(key) is None:
            return None
        with self._download(key) as file:
            return parse_note(file.read(), self._where(key))

    def entries(self) -> Iterator[Entry]:
        """Every artefact. Raises Tampered, TryAgain."""
        for key, at, _ in self._objects("folders"):
            digest = key.rpartition("/")[2]
            with self._download(key) as file:
                yield Entry(digest, at, parse(file.read(), digest, self._where(key)))

    def notes(self) -> Iterator[tuple[str, str]]:
        """Every note. Raises Tampered, TryAgain."""
        start = len(self._key("notes", ""))
        for key, _, _ in self._objects("notes"):
            with self._download(key) as file:
                yield key[start:], parse_note(file.read(), self._where(key))

    def forget(self, name: str) -> None:
        self._remove(self._key("notes", check_note(name)))

    def drop(self, digests: Collection[str], before: float) -> int:
        """The listings, and then the files that no listing names any more.

        S3 removes nothing on a condition of time: each object is looked at right before it goes, and what is put again has a new date
        by then (`_use`).
        """
        for digest in digests:
            self._remove(self._key("folders", check_digest(digest)), before)
        named = {value for entry in self.entries() for value in entry.files.values()}
        lone = [(key, size) for key, at, size in self._objects("files") if at < before and key.rpartition("/")[2] not in named]
        return sum(size for key, size in lone if self._remove(key, before))

    def _remove(self, key: str, before: float = math.inf) -> bool:
        """Whether an object that was last written before `before` was there, and is gone."""

        def attempt() -> bool:
            head = self._look(key)
            if head is None or head["LastModified"].timestamp() >= before:
                return False
            self._client.delete_object(Bucket=self._bucket, Key=key)
            return True

        return self._patiently(attempt, key)

    def _objects(self, kind: str) -> Iterator[tuple[str, float, int]]:
        """Key, date and size of every object of a kind, page by page."""
        more: dict[str, str] = {}
        prefix = self._key(kind, "")
        while True:
            page = self._patiently(partial(self._client.list_objects_v2, Bucket=self._bucket, Prefix=prefix, **more), prefix)
            for item in page.get("Contents", ()):
                yield item["Key"], item["LastModified"].timestamp(), item["Size"]
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _put_file(self, path: Path, digest: str) -> None:
        size = path.stat().st_size
        if size > MAX_OBJECT:
            raise UsageError(
                f"{path} has {size} bytes; an object holds at most {MAX_OBJECT}: save the weights in smaller shards"
            )
        self._create(self._key("files", digest), digest, size, lambda: path.open("rb"))

    def _create(self, key: str, digest: str, size: int, opened: Callable[[], BinaryIO]) -> None:
        """Create the object unless it is there. A reply that was lost is settled by looking: the object is ours, or not there."""

        def attempt() -> None:
            if self._is_ours(key, digest, size):
                return
            checksum = base64.b64encode(bytes.fromhex(digest)).decode()
            try:
                with opened() as body:
                    self._client.put_object(
                        Bucket=self._bucket,
                        Key=key,
                        Body=body,
                        IfNoneMatch="*",
                        ChecksumSHA256=checksum,
                        Metadata={"sha256": digest},
                    )
            except ClientError as error:
                if _code(error) in {"BadDigest", "XAmzContentChecksumMismatch"}:
                    raise Tampered(f"{self._where(key)}: the file changed while it was stored; store it again") from error
                if _code(error) != "PreconditionFailed" or not self._is_ours(key, digest, size):
                    raise

        self._patiently(attempt, key)

    def _is_ours(self, key: str, digest: str, size: int) -> bool:
        """Whether the object is there with these bytes, as far as a HEAD can say. Raises Tampered when it is another one."""
        head = self._look(key)
        if head is None:
            return False
        if head["ContentLength"] != size or head["Metadata"].get("sha256") != digest:
            raise Tampered(
                f"{self._where(key)} exists with other bytes than its name says; remove it, then store the artefact again"
            )
        self._use(key, head, digest)
        return True

    def _use(self, key: str, head: Any, digest: str) -> None:
        """Say of an old object that it is used again: it is copied onto itself, which renews its date."""
        if "/notes/" in f"/{key}" or time.time() - head["LastModified"].timestamp() < FRESH_SECONDS:
            return
        self._client.copy_object(
            Bucket=self._bucket, Key=key, CopySource={"Bucket": self._bucket, "Key": key}, MetadataDirective="REPLACE",
            Metadata={"sha256": digest},
        )  # fmt: skip

    def _head(self, key: str) -> Any | None:
        return self._patiently(lambda: self._look(key), key)

    def _look(self, key: str) -> Any | None:
        try:
            return self._client.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if _code(error) in {"404", "NoSuchKey", "NotFound"}:
                return None
            raise

    def _download(self, key: str) -> BinaryIO:
        """The object's bytes, whole: a body cut short is read again from its start."""

        def attempt() -> BinaryIO:
            file = tempfile.SpooledTemporaryFile(max_size=_SPOOL)  # noqa: SIM115 - the reader closes it
            answer = self._client.get_object(Bucket=self._bucket, Key=key)
            for chunk in answer["Body"].iter_chunks(1 << 20):
                file.write(chunk)
            if file.tell() != answer["ContentLength"]:
                raise ReadTimeoutError(endpoint_url=self._where(key))
            file.seek(0)
            return cast(BinaryIO, file)

        return self._patiently(attempt, key)

    def _patiently(self, attempt: Callable[[], T], key: str) -> T:
        return _patiently(attempt, self._where(key), self._budget)

    def _key(self, kind: str, digest: str) -> str:
        return "/".join([*([self._prefix] if self._prefix else []), kind, digest])

    def _where(self, key: str) -> str:
        return f"s3://{self._bucket}/{key}"


class Listed(NamedTuple):
    """An object: its key, its size in bytes, its entity tag."""

    key: str
    size: int
    tag: str


class BucketReader:
    """What lies in a bucket, a range at a time. `budget`: seconds that the retries of one request may take."""

    def __init__(self, client: Any, bucket: str, requests: int, budget: float = BUDGET_SECONDS) -> None:
        self._client, self._bucket, self._budget = client, bucket, budget
        self._left = self._requests = requests

    def listing(self, prefix: str) -> Iterator[Listed]:
        """Every object whose key begins with `prefix`, in the server's order, page by page."""
        more: dict[str, str] = {}
        while True:
            page = self._asked(prefix, partial(self._client.list_objects_v2, Bucket=self._bucket, Prefix=prefix, **more))
            yield from (Listed(item["Key"], item["Size"], item["ETag"]) for item in page.get("Contents", ()))
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def read(self, item: Listed, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of the object, all of them, as it was when it was listed.

        Raises Tampered when it was replaced or removed since, TryAgain when the server is away, BudgetSpent over `requests`.
        """

        def attempt() -> bytes:
            answer = self._client.get_object(
                Bucket=self._bucket, Key=item.key, Range=f"bytes={start}-{stop - 1}", IfMatch=item.tag
            )
            body = bytes(answer["Body"].read(stop - start + 1))
            if len(body) != stop - start:
                raise ReadTimeoutError(endpoint_url=item.key)
            return body

        try:
            return self._asked(item.key, attempt)
        except AutoGLMError as error:
            cause = error.__cause__
            if isinstance(cause, ClientError) and _status(cause) in {404, 412}:
                raise Tampered(
                    f"s3://{self._bucket}/{item.key} was replaced or removed since it was listed; list the data again"
                ) from cause
            raise

    def _asked(self, key: str, attempt: Callable[[], T]) -> T:
        where = f"s3://{self._bucket}/{key}"

        def counted() -> T:
            if not self._left:
                raise BudgetSpent(f"{where}: {self._requests} requests were sent, the budget of one shard; raise it")
            self._left -= 1
            return attempt()

        return _patiently(counted, where, self._budget)


def _patiently(attempt: Callable[[], T], where: str, budget: float) -> T:
    """Retry what passes, with full jitter, until the budget is spent: then TryAgain. What does not pass is said at once."""
    end, delay = time.monotonic() + budget, 0.1
    while True:
        try:
            return attempt()
        except (ClientError, BotoCoreError) as error:
            if not _passes(error):
                raise _refusal(error, where) from error
            if time.monotonic() + delay > end:
                raise TryAgain(f"{where} does not answer ({_said(error)}) after {budget:g} s; try again") from error
        time.sleep(random.uniform(0, delay))
        delay = min(2 * delay, 8.0)


def _refusal(error: ClientError | BotoCoreError, where: str) -> AutoGLMError:
    if isinstance(error, FlexibleChecksumError):
        return Tampered(f"{where} differs from its checksum; remove it, then store it again")
    if isinstance(error, NoCredentialsError) or (isinstance(error, ClientError) and _status(error) in {401, 403}):
        return UsageError(f"{where}: access denied ({_said(error)}); check the AWS keys, the bucket and its policy")
    return AutoGLMError(f"{where}: {_said(error)}; check the address and the bucket")


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _passes(error: ClientError | BotoCoreError) -> bool:
    if isinstance(error, ClientError):
        return _code(error) in _PASSING or _status(error) >= 500 or _status(error) == 429
    return isinstance(error, HTTPClientError | ConnectionError | IncompleteReadError)


def _said(error: Exception) -> str:
    """The error in a word or two; boto's own text can hold the whole request."""
    return f"{type(error).__name__} {_code(error)}".strip() if isinstance(error, ClientError) else type(error).__name__
