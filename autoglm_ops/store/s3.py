"""The artefact store in a bucket, and the reading of other people's buckets. The owner of boto3.

    <prefix>/files/<sha256>     one object per distinct file, so a tokenizer that ten models share is kept once
    <prefix>/folders/<digest>   a folder's listing: the text whose sha256 is the digest. Written last: what is listed is there
    <prefix>/notes/<name>       the digest of the folder that something else's name leads to

Objects are created once (`If-None-Match: *`) and never replaced; a large one goes up and comes down in parts (`store.parts`). What is
read is checked against the sha256 that it was stored under. The endpoint and the keys come from the environment, as for any AWS client
(AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, …), and are never written anywhere (threats F17, F28).
"""

from __future__ import annotations

import hashlib
import io
import math
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError

from autoglm_ops.contracts.cluster import FRESH_SECONDS, Entry
from autoglm_ops.contracts.record import tree_text
from autoglm_ops.errors import Refused, Tampered, TryAgain, UsageError
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
from autoglm_ops.store.parts import PART, Place, abandoned, abort, copied, upload
from autoglm_ops.store.patience import BUDGET_SECONDS, DAMAGED, checksum, code, patiently, status
from autoglm_ops.store.ranges import BucketReader

MAX_COPY = 5 * 2**30  # what S3 copies in one request
_SPOOL = 64 * 2**20
_READINGS = 5
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
    """Raises UsageError when the environment names an endpoint or a profile that cannot be."""
    config = Config(
        connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"},
        response_checksum_validation="when_required",
    )  # fmt: skip
    try:
        return boto3.session.Session().client("s3", config=config)
    except (ValueError, BotoCoreError) as error:  # its own words may hold an address with a password
        raise UsageError(
            f"no S3 client can be made of the AWS settings here ({type(error).__name__}); check AWS_ENDPOINT_URL (http://HOST:PORT, with "
            "the scheme), AWS_PROFILE and ~/.aws"
        ) from None


class Piece(NamedTuple):
    """Some bytes of an object, its size, and the sha256 that was said when it was stored."""

    body: bytes
    size: int
    said: str


class S3Store:
    """`budget`: seconds that the retries of one object, or one part of it, may take before the store counts as away.

    part: bytes that are sent or asked for at a time; S3 takes no smaller ones than 5 MiB.
    """

    def __init__(self, client: Any, bucket: str, prefix: str, budget: float = BUDGET_SECONDS, part: int = PART) -> None:
        self._client, self._bucket, self._prefix, self._budget, self._part = client, bucket, prefix, budget, part

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
        """Lay the folder down at `target`, each file checked. Raises Refused when it was never put, UsageError
        when there is no such bucket, Tampered, TryAgain."""
        key = self._key("folders", check_digest(digest))
        if self._head(key) is None:
            self._patiently(lambda: self._say_why(key), key)  # the bucket itself may not be there
            raise Refused(
                f"no artefact {digest} in {self._where(key)}; register the model again, or name its store (store.uri)"
            )
        with self._download(key) as file:
            listing: Listing = parse(file.read(), digest, self._where(key))
        return lay_down(
            digest,
            listing,
            target,
            lambda name, value: self._download(self._key("files", value), f"{name} of artefact {digest}: "),
        )

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
        """The listings, then the files that no listing names any more, then what killed writers left of an upload.

        S3 removes nothing on a condition of time: each object is looked at right before it goes, and what is put again has a new date
        by then (`_use`).
        """
        for digest in digests:
            self._remove(self._key("folders", check_digest(digest)), before)
        named = {value for entry in self.entries() for value in entry.files.values()}
        lone = [(key, size) for key, at, size in self._objects("files") if at < before and key.rpartition("/")[2] not in named]
        freed = sum(size for key, size in lone if self._remove(key, before))
        for key, upload_id in abandoned(self._place(self._key("files", "")), before):
            abort(self._place(key), upload_id)
        return freed

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
        size, key = path.stat().st_size, self._key("files", digest)
        if size <= self._part:
            self._create(key, digest, size, lambda: path.open("rb"))
        elif not self._patiently(lambda: self._is_ours(key, digest, size), key):
            upload(self._place(key), path, digest, lambda: self._is_ours(key, digest, size))

    def _create(self, key: str, digest: str, size: int, opened: Callable[[], BinaryIO]) -> None:
        """Create the object unless it is there. A reply that was lost is settled by looking: the object is ours, or not there."""

        def attempt() -> None:
            if self._is_ours(key, digest, size):
                return
            try:
                with opened() as body:
                    self._client.put_object(
                        Bucket=self._bucket,
                        Key=key,
                        Body=body,
                        IfNoneMatch="*",
                        ChecksumSHA256=checksum(bytes.fromhex(digest)),
                        Metadata={"sha256": digest},
                    )
            except ClientError as error:
                if code(error) in DAMAGED:  # here, or on the wire?
                    with opened() as body:
                        if hashlib.file_digest(cast(io.BufferedIOBase, body), "sha256").hexdigest() != digest:
                            raise Tampered(
                                f"{self._where(key)}: the file changed while it was stored; store it again"
                            ) from error
                if code(error) != "PreconditionFailed" or not self._is_ours(key, digest, size):
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
        if (size := head["ContentLength"]) > MAX_COPY:
            copied(self._place(key), digest, size)
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
            if code(error) in {"404", "NoSuchKey", "NotFound"}:
                return None
            if code(error) == "400":
                self._say_why(key)
            raise

    def _say_why(self, key: str) -> None:
        """Raises what is wrong but that the object is not there: an answer to HEAD has no body that says so, as one to GET has."""
        try:
            self._client.get_object(Bucket=self._bucket, Key=key, Range="bytes=0-0")["Body"].close()
        except ClientError as error:
            if code(error) != "NoSuchKey":
                raise

    def _download(self, key: str, what: str = "") -> BinaryIO:
        """The object's bytes, as they were stored. `what`: the words that a message about it begins with.

        Wrong bytes may be the wire's doing: they are read again, and the same ones twice are what the store holds. Raises Tampered
        then, TryAgain when every reading gave others.
        """
        wrong = ""
        for _ in range(_READINGS):
            file, found, said = self._read(key)
            if found == said:
                return file
            file.close()
            if found == wrong:
                raise Tampered(
                    f"{what}{self._where(key)} has sha256 {found}, not {said}: refused; remove it, then store it again"
                )
            wrong = found
        raise TryAgain(
            f"{what}{self._where(key)} arrived with other bytes each of {_READINGS} times; check the network, try again"
        )

    def _read(self, key: str) -> tuple[BinaryIO, str, str]:
        """The object, the sha256 of what came, and what it must be. A part that was cut short or lost is read again by itself."""
        file, digest = tempfile.SpooledTemporaryFile(max_size=_SPOOL), hashlib.sha256()  # noqa: SIM115 - the reader closes it
        while True:
            piece = self._patiently(partial(self._range, key, file.tell()), key)
            file.write(piece.body)
            digest.update(piece.body)
            if not piece.body or file.tell() >= piece.size:
                break
        file.seek(0)
        kind, _, name = key.rpartition("/")
        named = kind.endswith(("files", "folders"))  # by their content: what the server says of them is not asked
        return cast(BinaryIO, file), digest.hexdigest(), name if named else piece.said

    def _range(self, key: str, start: int) -> Piece:
        """At most a part's bytes from `start` on; none at the object's end."""
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=key, Range=f"bytes={start}-{start + self._part - 1}")
        except ClientError as error:
            if status(error) == 416:
                return Piece(b"", start, hashlib.sha256().hexdigest())
            raise
        body, size = bytes(answer["Body"].read()), int(answer["ContentRange"].rpartition("/")[2])
        if len(body) != min(size - start, self._part):
            raise ReadTimeoutError(endpoint_url=self._where(key))
        return Piece(body, size, answer["Metadata"].get("sha256", ""))

    def _patiently(self, attempt: Callable[[], T], key: str) -> T:
        return patiently(attempt, self._where(key), self._budget)

    def _place(self, key: str) -> Place:
        return Place(self._client, self._bucket, key, self._budget, self._part)

    def _key(self, kind: str, digest: str) -> str:
        return "/".join([*([self._prefix] if self._prefix else []), kind, digest])

    def _where(self, key: str) -> str:
        return f"s3://{self._bucket}/{key}"
