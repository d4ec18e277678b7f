"""What jobs left in the store and nobody needs any more: found by the records of jobs alone, so that nothing else is ever touched.

A job is old when its description was last put before the day in question: whoever starts it, follows it or takes it over puts it
again. What old jobs alone lead to goes: descriptions, results, checkpoints, inputs, outputs, and the notes of their keys. What a
younger job, another kind of note (datasets) or the registry names stays.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from autoglm_ops.cluster.exchange import Kept, slot
from autoglm_ops.cluster.meeting import Meeting
from autoglm_ops.contracts.cluster import Entry, Shelf, Work, WorkResult
from autoglm_ops.contracts.record import Record
from autoglm_ops.errors import Tampered

KINDS: Mapping[str, type[Record]] = {"work.json": Work, "result.json": WorkResult, "kept.json": Kept, "posted.json": Meeting}
"""An artefact that holds one file of such a name is a job's record."""
NOTES = ("done", "result", "kept", "attempt", "meeting", "settled")
"""The kinds of a job's notes."""


@dataclass(frozen=True)
class Held:
    """A job's record: when it was put last, and the artefacts that it names."""

    digest: str
    name: str
    at: float
    leads: frozenset[str]


@dataclass(frozen=True)
class Doomed:
    """What is to go: keys of jobs, names of notes in the order in which they go, digests of artefacts."""

    jobs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    artefacts: tuple[str, ...] = ()


def find(store: Shelf, before: float, kept: Collection[str]) -> Doomed:
    """What jobs of before `before` (seconds since the epoch) alone lead to. `kept`: digests that something else holds. Removes nothing.

    Raises Tampered for a job's record that cannot be read: what it leads to is not known.
    """
    strangers: dict[str, Tampered] = {}
    records, notes = list(_records(store, store.entries(), strangers)), dict(store.notes())
    told = {digest for name, digest in notes.items() if name.partition("/")[0] in NOTES}
    for digest, error in strangers.items():
        if digest in told or f"attempt/{slot(digest, 1)}" in notes:
            raise error
    return decide(records, notes, before, kept)


def clear(store: Shelf, doomed: Doomed, before: float) -> int:
    """Remove it. Returns the bytes. Cut short anywhere it leaves whole jobs or parts that the next call finds again."""
    for name in doomed.notes:
        store.forget(name)
    # descriptions last: they are what the rest is found by
    return store.drop([one for one in doomed.artefacts if one not in doomed.jobs], before) + store.drop(doomed.jobs, before)


def decide(records: Collection[Held], notes: Mapping[str, str], before: float, kept: Collection[str]) -> Doomed:
    """Pure: see `find`."""
    by_digest = {record.digest: record for record in records}
    held = {record.digest: [record.digest, *_held(record.digest, notes)] for record in records if record.name == "work.json"}
    recent = {record.digest for record in records if record.at >= before}
    young = [key for key, names in held.items() if not recent.isdisjoint(names)]
    marked = {digest for name, digest in notes.items() if name.partition("/")[0] not in NOTES} | set(kept)
    roots = {*recent, *(digest for key in young for digest in held[key])}
    for root in roots:
        marked |= {root, *(by_digest[root].leads if root in by_digest else ())}
    old = [record for record in records if record.digest not in marked]
    gone = tuple(sorted(key for key in held if key not in marked))
    return Doomed(
        jobs=gone,
        notes=tuple(name for key in gone for name in notes_of(key, notes)),
        artefacts=tuple(sorted({digest for record in old for digest in (record.digest, *record.leads)} - marked)),
    )


def _held(key: str, notes: Mapping[str, str]) -> list[str]:
    """The records that the job's notes name: a job that ended today is young, whenever it was described."""
    return [notes[name] for name in notes_of(key, notes)]


def notes_of(key: str, notes: Mapping[str, str]) -> list[str]:
    """The names of a job's notes, in the order in which they go.

    Its result first, so that no name is left of what is gone; numbers, which are claimed without gaps, from the highest.
    """
    attempts = _numbered("attempt", key, notes)
    found = [f"done/{key}"] if f"done/{key}" in notes else []
    for number in range(len(attempts), 0, -1):
        own = slot(key, number)
        found += [f"result/{own}"] if f"result/{own}" in notes else []
        for meeting in reversed(_numbered("meeting", own, notes, first=0)):
            found += [name for name in (f"settled/{meeting.partition('/')[2]}", meeting) if name in notes]
    return [*found, *reversed(_numbered("kept", key, notes)), *reversed(attempts)]


def _numbered(kind: str, key: str, notes: Mapping[str, str], first: int = 1) -> list[str]:
    names: list[str] = []
    while (name := f"{kind}/{slot(key, first + len(names))}") in notes:
        names.append(name)
    return names


def _records(store: Shelf, entries: Iterable[Entry], strangers: dict[str, Tampered]) -> Iterator[Held]:
    """`strangers` gets what has a record's name and is none: a job's output may be called result.json."""
    with tempfile.TemporaryDirectory(prefix="autoglm-collect-") as folder:
        for number, entry in enumerate(entries):
            name = next(iter(entry.files))
            if len(entry.files) == 1 and name in KINDS:
                path = store.get(entry.digest, Path(folder) / str(number)) / name
                try:
                    record = KINDS[name].read(path)
                except Tampered as error:
                    strangers[entry.digest] = error
                    continue
                yield Held(entry.digest, name, entry.at, frozenset(_leads(record)))


def _leads(record: Record) -> Iterable[str]:
    if isinstance(record, Work):
        return record.inputs.values()
    if isinstance(record, WorkResult):
        return record.outputs.values()
    if isinstance(record, Meeting):
        return () if record.kept is None else (record.kept.digest,)
    return (record.digest,) if isinstance(record, Kept) else ()
