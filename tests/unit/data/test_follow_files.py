"""A log of files: nothing is skipped. What a writer may do is followed, and what it may not is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from follow_parts import review, write

from autoglm_ops.data.follow import open_log
from autoglm_ops.data.follow.events import Entry
from autoglm_ops.data.follow.files import FileLog, Growing
from autoglm_ops.data.readers import Blob, Limits
from autoglm_ops.errors import BadData, Tampered, TryAgain, UsageError


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """a.jsonl with events 0 and 1, b.jsonl with 2 and 3, c.jsonl with 4."""
    for name, numbers in {"a": (0, 1), "b": (2, 3), "c": (4,)}.items():
        write(tmp_path / "log" / f"{name}.jsonl", map(review, numbers))
    return tmp_path / "log"


def read(log: Path, after: str = "", most: int = 100) -> list[Entry]:
    return list(open_log(str(log)).read(after, most))


def raws(entries: list[Entry]) -> list[bytes]:
    return [entry.raw for entry in entries]


def reviews(*numbers: int) -> list[bytes]:
    return [review(number) for number in numbers]


def test_a_line_without_its_end_waits_for_it(log: Path) -> None:
    with (log / "c.jsonl").open("ab") as file:
        file.write(review(5)[:9])
    found = read(log)
    assert raws(found) == reviews(0, 1, 2, 3, 4)
    with (log / "c.jsonl").open("ab") as file:
        file.write(review(5)[9:] + b"\n")
    assert raws(read(log, found[-1].after)) == reviews(5)


def test_a_line_that_never_got_its_end_is_taken_when_its_file_is_left(log: Path) -> None:
    with (log / "c.jsonl").open("ab") as file:
        file.write(b'{"type"')
    found = read(log)
    write(log / "d.jsonl", reviews(5))
    later = read(log, found[-1].after)
    assert raws(later) == [b'{"type"', *reviews(5)]
    assert raws(read(log, later[0].after)) == reviews(5)
    assert raws(read(log)) == [*reviews(0, 1, 2, 3, 4), b'{"type"', *reviews(5)]


def test_the_last_file_may_grow_until_it_is_left(log: Path) -> None:
    found = read(log)
    write(log / "c.jsonl", reviews(5))
    write(log / "d.jsonl", reviews(6))
    assert raws(read(log, found[-1].after)) == reviews(5, 6)
    write(log / "e.jsonl", [])
    write(log / "f.jsonl", reviews(7))
    assert raws(read(log, found[-1].after)) == reviews(5, 6, 7)


def test_a_file_that_grows_while_it_is_read_is_read_to_its_end(log: Path) -> None:
    """What the writer puts into a file before it opens the next is read before the next, though the listing is older."""
    walk = open_log(str(log)).read("", 100)
    found = [next(walk), next(walk)]
    write(log / "a.jsonl", reviews(9))
    assert raws([*found, *walk]) == reviews(0, 1, 9, 2, 3, 4)


@pytest.mark.parametrize("change", ["late", "grew", "shrank", "swapped"])
def test_what_comes_to_lie_behind_is_refused(log: Path, change: str) -> None:
    after = read(log)[-1].after
    if change == "late":
        write(log / "aa.jsonl", reviews(9))
    elif change == "grew":
        write(log / "a.jsonl", reviews(9))
    elif change == "shrank":
        (log / "b.jsonl").write_bytes(b"")
    else:
        (log / "b.jsonl").rename(log / "bb.jsonl")
    with pytest.raises(Tampered, match=r"of the files before c.jsonl one is new, or is not as it was"):
        read(log, after)


@pytest.mark.parametrize("content", [b"", review(4)[:-1] + b"\n", review(5) + b"\n", review(5) * 9])
def test_a_file_with_other_bytes_than_were_read_is_refused(log: Path, content: bytes) -> None:
    after = read(log)[-1].after
    (log / "c.jsonl").write_bytes(content + (b"x\n" if len(content) > 40 else b""))
    with pytest.raises(Tampered, match="append-only"):
        read(log, after)
        write(log / "c.jsonl", reviews(6))  # equal in size: it is seen when there is more to read
        read(log, after)


def test_old_files_may_be_removed_and_the_one_we_are_in_may_not(log: Path) -> None:
    found = read(log)
    (log / "a.jsonl").unlink()
    write(log / "c.jsonl", reviews(5))
    assert raws(read(log, found[-1].after)) == reviews(5)
    (log / "c.jsonl").unlink()
    with pytest.raises(Tampered, match=r"c.jsonl has 0 bytes, but \d+ of it were read"):
        read(log, found[-1].after)


def test_what_is_hidden_or_no_log_is_left_alone_and_said(log: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in (".hidden.jsonl", "_tmp/x.jsonl"):
        write(log / name, reviews(9))
    (log / "README.md").write_text("no events")
    source = open_log(str(log))
    with caplog.at_level(logging.WARNING):
        assert raws(list(source.read("", 100))) == raws(list(source.read("", 100))) == reviews(0, 1, 2, 3, 4)
    assert [record.getMessage() for record in caplog.records] == [
        "log: 'README.md' is no .jsonl or .ndjson file and is left alone"
    ]


def test_a_packed_file_is_refused_since_it_would_be_skipped(log: Path) -> None:
    (log / "d.jsonl.gz").write_bytes(b"")
    with pytest.raises(BadData, match=r"d.jsonl.gz is packed; a log's files are plain JSON Lines: unpack it"):
        read(log)


def test_files_in_folders_are_read_in_the_order_of_their_whole_names(log: Path) -> None:
    write(log / "a" / "z.jsonl", reviews(7))
    assert [entry.place for entry in read(log)][:3] == ["a.jsonl:0", f"a.jsonl:{len(review(0)) + 1}", "a/z.jsonl:0"]


class Late(FileLog):
    """A log whose last file is removed behind the `looks`-th look at it."""

    looks = 1

    def listed(self) -> list[Blob]:
        found = super().listed()
        self.looks -= 1
        if not self.looks:
            (self.place._root / found[-1].name).unlink()  # type: ignore[attr-defined]
        return found


@pytest.mark.parametrize(
    ("start", "looks", "error", "says"),
    [
        (3, 2, TryAgain, r"c.jsonl cannot be read: No such file or directory"),
        (3, 1, Tampered, r"c.jsonl was removed before it was read; a log is append-only"),
        (0, 1, Tampered, r"c.jsonl was removed before it was read; a log is append-only"),
    ],
)
def test_a_file_that_goes_before_it_was_read_is_said(
    log: Path, start: int, looks: int, error: type[Exception], says: str
) -> None:
    late = Late("log", Growing(str(log), Limits()), 0.2)
    late.looks = looks
    with pytest.raises(error, match=says):
        list(late.read(read(log)[start].after, 100))


def test_no_folder_and_no_kind_of_log_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="is no folder"):
        open_log(str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match="unknown source log 'kafka'"):
        open_log("kafka://host/topic")
