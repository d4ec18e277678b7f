"""`autoglm submit` with code in a bucket and a store in a bucket, on a real S3 server."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import boto3
import pytest
from s3_server import BUCKET
from submit_calls import CODE, Calls


def packed(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_code_comes_from_a_bucket(
    s3: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = Calls(tmp_path, capsys, monkeypatch)
    client = boto3.client("s3")
    client.put_object(Bucket=BUCKET, Key="code/job.zip", Body=packed(**{"go.py": CODE, "data.txt": "x" * 20_000_000}))
    client.put_object(Bucket=BUCKET, Key="code/evil.zip", Body=packed(**{"../evil.py": CODE}))
    store = ("--set", f"store.uri={s3}/{tmp_path.name}")
    said = submit(*store, "--code", f"{s3}/code/job.zip", "--wait", "--", "python", "go.py", "1", "0")
    assert said.exit == 0 and "tick 0" in said.out, said.err
    job = submit("list", "--json").json[0]
    assert (Path(job["output"]) / "out" / "made").read_text() == job["id"]
    assert not (submit.home / "store").exists()
    for key, code, word in (
        ("evil.zip", 3, "is not unpacked: name"),
        ("no.zip", 2, "is not an object"),
        ("", 2, "is not an object"),
    ):
        refused = submit(*store, "--code", f"{s3}/code/{key}", "--", "true")
        assert refused.exit == code and word in refused.err
    assert len(submit("list", "--json").json) == 1
