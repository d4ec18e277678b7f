"""A password that came by environment stays there."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoglm_ops.errors import SettingsError
from autoglm_ops.settings import load_tree
from autoglm_ops.settings.writer import write_resolved

URL = "postgresql+psycopg://autoglm:canary-0f3a@db.example:5432/studies"
URLS = (URL, "postgresql://autoglm:kR3/canary@db/studies", "postgresql://db/studies?user=autoglm&password=canary")


@pytest.mark.parametrize("url", URLS)
def test_the_password_of_the_studies_server_is_in_no_file(url: str, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("tracking: {studies: null}\n")
    tree, origin = load_tree(params, environ={"AUTOGLM__TRACKING__STUDIES": url, "AUTOGLM__TRAIN__EPOCHS": "2"})
    assert write_resolved(params, tree, origin) == ["train.epochs"]
    assert "canary" not in params.read_text() and "epochs: 2" in params.read_text()


@pytest.mark.parametrize("url", URLS)
def test_a_password_on_the_command_line_is_refused_and_a_plain_url_kept(url: str, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("seed: 7\n")
    tree, origin = load_tree(params, overrides=[f"tracking.studies={url}"], environ={})
    with pytest.raises(SettingsError, match="give it by environment"):
        write_resolved(params, tree, origin)
    tree, origin = load_tree(params, overrides=["tracking.uri=http://mlflow:5000"], environ={})
    assert write_resolved(params, tree, origin) == ["tracking.uri"]


def test_a_tag_in_the_file_makes_no_object(tmp_path: Path) -> None:
    """The strict reader refuses such a file before; the writer, which reads it again for its comments, runs nothing either."""
    params, made = tmp_path / "params.yaml", tmp_path / "made"
    params.write_text("seed: 7\n")
    tree, origin = load_tree(params, overrides=["train.epochs=2"], environ={})
    params.write_text(f"seed: !!python/object/apply:os.mkdir [{made}]\n")
    with pytest.raises(SettingsError, match="constructor for the tag"):
        load_tree(params, environ={})
    write_resolved(params, tree, origin)
    assert not made.exists() and "epochs: 2" in params.read_text()
