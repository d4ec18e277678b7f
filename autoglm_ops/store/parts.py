"""An object in parts: sent up, copied onto itself, and taken away again when it was never finished.

Each part has its own checksum and its own retries. The parts become the object in one request, `CompleteMultipartUpload` with
`If-None-Match: *`: of two writers of a key one makes it, and the other finds it made. A server that does not know that header there
lets the second replace it by the same bytes, which the key's digest says; what must be claimed (notes) is small, and one PUT.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from botocore.exceptions import ClientError

from autoglm_ops.errors import AutoGLMError, Tampered, TryAgain
from autoglm_ops.store.patience import checksum, code, patiently

PART = 32 * 2**20
MAX_PARTS = 10_000
T = TypeVar("T")
log = logging.getLogger(__name__)


class Place(NamedTuple):
    """A key of a bucket. budget: seconds that the retries of one request may take; part: bytes."""

    client: Any
    bucket: str
    key: str
    budget: float
    part: int

    @property
    def where(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def address(self) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.key}

    def ask(self, call: str, **arguments: Any) -> Any:
        """One request about this key, until it is answered. Raises TryAgain over the budget."""
        return patiently(partial(getattr(self.client, call), **self.address, **arguments), self.where, self.budget)

    def spans(self, size: int) -> list[tuple[int, int]]:
        """[start, stop) of each part."""
        step = max(self.part, -(-size // MAX_PARTS))
        return [(start, min(start + step, size)) for start in range(0, size, step)]


def upload(place: Place, path: Path, digest: str, is_there: Callable[[], bool]) -> None:
    """Make the object of the file at `path`. is_there: whether it was made, by whomever; asked before and after each try to finish.

    Raises Tampered when the file changes meanwhile, TryAgain when the server is away. Whatever is raised, no part stays.
    """
    size, whole = path.stat().st_size, hashlib.sha256()
    with _begun(place, digest, ChecksumAlgorithm="SHA256") as upload_id, path.open("rb") as file:
        parts = []
        for number, (start, stop) in enumerate(place.spans(size), 1):
            data = file.read(stop - start)
            whole.update(data)
            check = checksum(hashlib.sha256(data).digest())
            sent = place.ask("upload_part", UploadId=upload_id, PartNumber=number, Body=data, ChecksumSHA256=check)
            parts.append({"PartNumber": number, "ETag": sent["ETag"], "ChecksumSHA256": check})
        if whole.hexdigest() != digest:
            raise Tampered(f"{path} changed while it was stored at {place.where}; finish writing it, then store it again")
        _finish(place, upload_id, parts, size, is_there)


def copied(place: Place, digest: str, size: int) -> None:
    """Copy the object onto itself, which renews its date, where it is too large for one request."""
    source = {"Bucket": place.bucket, "Key": place.key}
    with _begun(place, digest) as upload_id:
        parts = []
        for number, (start, stop) in enumerate(place.spans(size), 1):
            about = {"CopySource": source, "CopySourceRange": f"bytes={start}-{stop - 1}"}
            made = place.ask("upload_part_copy", UploadId=upload_id, PartNumber=number, **about)
            parts.append({"PartNumber": number, "ETag": made["CopyPartResult"]["ETag"]})
        place.ask("complete_multipart_upload", UploadId=upload_id, MultipartUpload={"Parts": parts})


def abandoned(place: Place, before: float) -> Iterator[tuple[str, str]]:
    """Key and id of every upload below `place.key` that was begun before `before` and neither finished nor aborted."""
    more: dict[str, str] = {}
    while True:
        call = partial(place.client.list_multipart_uploads, Bucket=place.bucket, Prefix=place.key, **more)
        page = patiently(call, place.where, place.budget)
        for item in page.get("Uploads", ()):
            if item["Initiated"].timestamp() < before:
                yield item["Key"], item["UploadId"]
        if not page.get("IsTruncated"):
            return
        more = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def abort(place: Place, upload_id: str) -> None:
    """Remove an upload's parts. One that is finished or aborted has none."""

    def attempt() -> None:
        try:
            place.client.abort_multipart_upload(**place.address, UploadId=upload_id)
        except ClientError as error:
            if code(error) != "NoSuchUpload":
                raise

    patiently(attempt, place.where, place.budget)


@contextmanager
def _begun(place: Place, digest: str, **asked: str) -> Iterator[str]:
    """An upload's id. What ends badly is aborted: nobody sees such parts, and they are paid for.

    What cannot be (a kill, a server that is away) is left to `abandoned`, which the store's clearing asks.
    """
    upload_id: str = place.ask("create_multipart_upload", Metadata={"sha256": digest}, **asked)["UploadId"]
    try:
        yield upload_id
    except BaseException:
        try:
            abort(place, upload_id)
        except AutoGLMError as error:
            log.warning("an unfinished upload stays until `autoglm runs gc`: %s", error)
        raise


def _finish(place: Place, upload_id: str, parts: list[dict[str, Any]], size: int, is_there: Callable[[], bool]) -> None:
    def attempt() -> bool:
        """Whether it was we who made it, as far as we were told."""
        if is_there():
            return False
        try:
            place.client.complete_multipart_upload(
                **place.address, UploadId=upload_id, MultipartUpload={"Parts": parts}, IfNoneMatch="*", MpuObjectSize=size
            )
        except ClientError as error:
            if code(error) == "NoSuchUpload":
                raise TryAgain(f"{place.where}: the upload was ended by somebody else; try again") from error
            if code(error) != "PreconditionFailed" or not is_there():
                raise
            return False
        return True

    if not patiently(attempt, place.where, place.budget):
        abort(place, upload_id)
