"""What a log, a screen and a file may say of a URL with a password."""

from __future__ import annotations

import pytest

from autoglm_ops.logs import without_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg://me:canary@db:5432/x", "postgresql+psycopg://me:***@db:5432/x"),
        ("postgresql://airflow:kR3/canary@db/optuna", "postgresql://airflow:***@db/optuna"),
        ("postgresql://u:can@ary@h", "postgresql://u:***@h"),
        ("postgresql://u:can?ary#c@[::1]:5432/x", "postgresql://u:***@[::1]:5432/x"),
        ("postgresql://me@server:canary@h/x", "postgresql://me@server:***@h/x"),
        ("postgresql://h/x?user=u&password=canary&connect_timeout=3", "postgresql://h/x?user=u&password=***&connect_timeout=3"),
        ("postgresql://u:canary@h/x?sslpassword=canary", "postgresql://u:***@h/x?sslpassword=***"),
        ("redis://:canary@cache:6379/0", "redis://:***@cache:6379/0"),
        ("https://me:can@ary@host:8443/data@2024/x.csv", "https://me:***@host:8443/data@2024/x.csv"),
    ],
)
def test_no_part_of_a_password_is_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h:5432/x",
        "postgresql://me@h/x",
        "https://host:8443/data@2024/x.csv?limit=3",
        "s3://bucket/a:b@c",
        "sqlite:////home/me/study.db",
        "redis://cache:6379/0",
        "text, not a URL: a:b@c ?password=x",
    ],
)
def test_what_holds_no_password_is_left_as_it_is(url: str) -> None:
    assert without_password(url) == url
