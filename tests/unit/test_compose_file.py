"""docker-compose.yaml, read: what is published, what a container may do, and that no secret stands in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text(encoding="utf-8"))


def test_ports_are_published_on_the_loopback_interface_alone() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", ())]
    assert len(ports) == 3 and all(port.startswith("127.0.0.1:") for port in ports)


def test_the_platforms_containers_are_nobodys_root_and_hold_no_capability() -> None:
    for name, service in COMPOSE["services"].items():
        if name != "postgres":  # its image drops root by itself
            assert service["user"] == "10001:10001" and service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges"], name


def test_passwords_come_from_files() -> None:
    for name, service in COMPOSE["services"].items():
        told = str([service.get("environment"), service.get("command")])
        assert "PASSWORD" not in told.replace("POSTGRES_PASSWORD_FILE", ""), name
        assert "airflow:" not in told.replace("http://airflow:8080", ""), name  # a password in a database's address
