"""A model folder is what was published or it is refused: every file, every byte, every kind of intruder."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from autoglm_ops.contracts.record import digest_path
from autoglm_ops.errors import Tampered
from autoglm_ops.training import artifact

GOOD = save({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([1], np.int64)})


def stage(root: Path) -> Path:
    staged = root / "staged"
    staged.mkdir(parents=True)
    save_file({"w": np.ones((4, 4), np.float32)}, staged / "model.safetensors")
    (staged / "config.json").write_text("{}")
    return staged


def publish(root: Path) -> Path:
    artifact.publish(stage(root), root / "model", architecture="X", labels=("a", "b"), max_length=8)
    return root / "model"


def test_a_published_folder_verifies_by_manifest_and_by_digest(tmp_path: Path) -> None:
    model = publish(tmp_path)
    manifest = artifact.verify(model, digest_path(model))
    assert sorted(manifest.files) == ["config.json", "model.safetensors"]
    assert not (tmp_path / "staged").exists()
    with pytest.raises(Tampered, match="was registered"):
        artifact.verify(model, "0" * 64)


def test_publishing_again_replaces_and_leaves_nothing_behind(tmp_path: Path) -> None:
    publish(tmp_path)
    model = publish(tmp_path)
    artifact.verify(model)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "manifest.json"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    model = publish(tmp_path)
    (model / name).unlink()
    with pytest.raises(Tampered, match=name):
        artifact.verify(model)


def test_any_flipped_bit_is_refused(tmp_path: Path) -> None:
    model = publish(tmp_path)
    path = model / "model.safetensors"
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(Tampered, match=r"model.safetensors was changed"):
            artifact.verify(model)


@pytest.mark.parametrize("name", ["extra.json", "weights.pt", "evil.pkl", "code.py", "sub/notes.txt", ".hidden.json"])
def test_an_extra_file_is_refused(tmp_path: Path, name: str) -> None:
    model = publish(tmp_path)
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_bytes(b"x")
    with pytest.raises(Tampered, match=r"not in the manifest|could run when loaded"):
        artifact.verify(model)


def test_a_link_is_refused(tmp_path: Path) -> None:
    model = publish(tmp_path)
    (tmp_path / "elsewhere.json").write_text("{}")
    (model / "config.json").unlink()
    (model / "config.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(Tampered, match="link"):
        artifact.verify(model)


def test_a_pickle_is_not_even_published(tmp_path: Path) -> None:
    staged = stage(tmp_path)
    (staged / "optimizer.pt").write_bytes(b"x")
    with pytest.raises(Tampered, match=r"optimizer\.pt"):
        artifact.publish(staged, tmp_path / "model", architecture="X", labels=(), max_length=8)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_numbers_are_refused(dtype: type, value: float) -> None:
    with pytest.raises(Tampered, match="'bad' holds NaN"):
        artifact.check_weights("m.safetensors", save({"bad": np.array([1, value], dtype)}))


def test_bfloat16_is_looked_into_too() -> None:
    def bf16(bits: int) -> bytes:
        head = json.dumps({"w": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
        return struct.pack("<Q", len(head)) + head + struct.pack("<H", bits)

    artifact.check_weights("m", bf16(0x3F80))
    with pytest.raises(Tampered):
        artifact.check_weights("m", bf16(0x7F80))


def test_well_formed_weights_pass() -> None:
    artifact.check_weights("m.safetensors", GOOD)


HOSTILE = {
    "claims 4 GB of header": struct.pack("<Q", 1 << 32) + GOOD[8:],
    "empty": b"",
    "cut off": GOOD[:-1],
    "something behind": GOOD + b"x",
    "overlap": GOOD.replace(b'"data_offsets":[8,32]', b'"data_offsets":[0,24]'),
    "wrong shape": GOOD.replace(b'"shape":[2,3]', b'"shape":[2,4]'),
    "negative": GOOD.replace(b'"shape":[2,3]', b'"shape":[-2,-3]'.ljust(13)),
    "unknown dtype": GOOD.replace(b'"F32"', b'"F99"'),
    "deep": struct.pack("<Q", 90_000) + b"[" * 90_000,
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_headers_are_refused(content: bytes) -> None:
    with pytest.raises(Tampered):
        artifact.check_weights("m.safetensors", content)


@settings(max_examples=300)
@given(at=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255), cut=st.integers(0, len(GOOD)))
def test_mutants_end_in_tampered_or_in_peace(at: int, byte: int, cut: int) -> None:
    for mutant in (GOOD[:at] + bytes([byte]) + GOOD[at + 1 :], GOOD[:cut]):
        try:
            artifact.check_weights("m.safetensors", mutant)
        except Tampered:
            continue


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_fault_while_publishing_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    model = publish(tmp_path)
    before = digest_path(model)
    staged = stage(tmp_path)
    (staged / "config.json").write_text('{"new": 1}')
    real = getattr(os, call)
    left = 3 if call == "fsync" else 0

    def fails(*arguments: object) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(os, call, fails)
    with pytest.raises(OSError, match="No space"):
        artifact.publish(staged, model, architecture="X", labels=(), max_length=8)
    monkeypatch.undo()
    artifact.verify(model)
    assert digest_path(model) == before
