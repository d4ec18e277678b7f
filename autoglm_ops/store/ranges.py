"""Reading other people's buckets: what lies there, and a range of an object at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, TypeVar

from botocore.exceptions import ClientError, ReadTimeoutError

from autoglm_ops.errors import AutoGLMError, BudgetSpent, Tampered
from autoglm_ops.store.patience import BUDGET_SECONDS, patiently, status

T = TypeVar("T")


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
            if isinstance(cause, ClientError) and status(cause) in {404, 412}:
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

        return patiently(counted, where, self._budget)
