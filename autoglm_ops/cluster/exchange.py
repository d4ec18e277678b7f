"""A job's life in the artefact store: its description, the claims on its key, what its attempts left.

Everything is a note, created once and never replaced, so that the store's own compare-and-swap is enough (threats F21):

    attempt/<key, n>   who claimed attempt n                    result/<key, n>   how attempt n ended
    done/<key>         the one result; nothing replaces it      kept/<key, n>     the n-th folder kept for the next attempt
    meeting/<key, n>   where the nodes of attempt n meet (`meeting`)
    settled/<key, n>   whether they could have what they are to continue from (`meeting`)
"""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path, PurePosixPath
from typing import TypeVar

from autoglm_ops.contracts.cluster import Store, Work, WorkResult
from autoglm_ops.contracts.record import Record, digest_of
from autoglm_ops.errors import Refused, Tampered, TryAgain

R = TypeVar("R", bound=Record)


class Fenced(TryAgain):
    """A newer attempt has claimed the key: this one's result is not wanted any more."""


class Kept(Record):
    """A folder that an attempt kept: where it lay, and what it holds."""

    path: str
    digest: str


def slot(key: str, number: int) -> str:
    """The name, as a digest, of a key's n-th anything."""
    return digest_of([key, number])


def inside(path: str) -> PurePosixPath:
    """`path` itself. Raises Refused unless it stays in the work folder."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\0" in path:
        raise Refused(
            f"the job names {path!r}, which is outside its work folder; a path of a job is relative and holds no '..'"
        )
    return pure


def describe(store: Store, work: Work) -> str:
    """Keep the description. Returns its digest, which is the job's key."""
    return _put(store, "work.json", work)


def described(store: Store, key: str) -> Work:
    """The description of job `key`. Raises Refused, Tampered or TryAgain."""
    return _get(store, key, "work.json", Work)


def claim(store: Store, key: str) -> int:
    """Claim the next attempt on `key`. Two who claim at once get two numbers."""
    number = newest(store, key)
    mine = secrets.token_hex(32)
    while True:
        number += 1
        if store.note(f"attempt/{slot(key, number)}", mine) == mine:
            return number


def newest(store: Store, key: str) -> int:
    """The highest claimed attempt; 0 when there is none."""
    return _last(store, "attempt", key)


def check_newest(store: Store, key: str, attempt: int) -> None:
    """Raises Fenced when a newer attempt has claimed the key."""
    if store.noted(f"attempt/{slot(key, attempt + 1)}") is not None:
        raise Fenced(f"attempt {attempt} on job {key[:16]} is not the newest any more; what it does is dropped")


def publish(store: Store, result: WorkResult) -> WorkResult:
    """Keep how an attempt ended; a success becomes the key's result unless there is one. Returns the one that stands.

    Raises Fenced when a newer attempt has claimed the key.
    """
    if (done := finished(store, result.key)) is not None:
        return done
    check_newest(store, result.key, result.attempt)
    kept = _put(store, "result.json", result)
    if result.state != "succeeded":
        return _result(store, store.note(f"result/{slot(result.key, result.attempt)}", kept), result.key)
    return _result(store, store.note(f"done/{result.key}", kept), result.key)


def finished(store: Store, key: str) -> WorkResult | None:
    """The key's one result, if an attempt has succeeded."""
    kept = store.noted(f"done/{key}")
    return None if kept is None else _result(store, kept, key)


def ended(store: Store, key: str, attempt: int) -> WorkResult | None:
    """The key's result, or how `attempt` failed, or None when neither is known."""
    if (done := finished(store, key)) is not None:
        return done
    kept = store.noted(f"result/{slot(key, attempt)}")
    return None if kept is None else _result(store, kept, key)


def keep(store: Store, key: str, path: str, folder: Path) -> None:
    """Keep a folder for the next attempt on `key`; it is laid down at `path` again."""
    kept = _put(store, "kept.json", Kept(path=path, digest=store.put(folder)))
    number = _last(store, "kept", key) + 1
    while store.note(f"kept/{slot(key, number)}", kept) != kept:
        number += 1


def last_kept(store: Store, key: str) -> Kept | None:
    """What the attempts on `key` kept last."""
    number = _last(store, "kept", key)
    kept = store.noted(f"kept/{slot(key, number)}") if number else None
    return None if kept is None else _get(store, kept, "kept.json", Kept)


def post(store: Store, name: str, record: R) -> R:
    """Keep a record under a note's name; returns the one that stands there."""
    kept = store.note(name, _put(store, "posted.json", record))
    return _get(store, kept, "posted.json", type(record))


def posted(store: Store, name: str, kind: type[R]) -> R | None:
    """What `post` kept under `name`."""
    kept = store.noted(name)
    return None if kept is None else _get(store, kept, "posted.json", kind)


def _last(store: Store, kind: str, key: str) -> int:
    """Numbers are claimed without gaps, so the last is found by doubling and halving: few questions even after many attempts."""
    there, high = 0, 1
    while store.noted(f"{kind}/{slot(key, high)}") is not None:
        there, high = high, 2 * high
    while high - there > 1:
        middle = (there + high) // 2
        if store.noted(f"{kind}/{slot(key, middle)}") is None:
            high = middle
        else:
            there = middle
    return there


def _result(store: Store, digest: str, key: str) -> WorkResult:
    result = _get(store, digest, "result.json", WorkResult)
    if result.key != key:
        raise Tampered(f"the store answers for job {key[:16]} with the result of {result.key[:16]}: it was changed")
    for path in result.outputs:  # whoever may write to the store says where we are to write
        inside(path)
    return result


def _put(store: Store, name: str, record: Record) -> str:
    with tempfile.TemporaryDirectory(prefix="autoglm-record-") as folder:
        record.write(Path(folder) / "it" / name)
        return store.put(Path(folder) / "it")


def _get(store: Store, digest: str, name: str, kind: type[R]) -> R:
    with tempfile.TemporaryDirectory(prefix="autoglm-record-") as folder:
        path = store.get(digest, Path(folder) / "it") / name
        if not path.exists():
            raise Tampered(f"artefact {digest} holds no {name}: it is no {kind.__name__}")
        return kind.read(path)
