"""The images on a real Docker engine: they build from the locks, are small enough, are nobody's root, and hold what they are for.

Takes DOCKER_HOST from the environment. AUTOGLM_BASE_IMAGE: a base image that can install packages (python:3.11-slim-bookworm by default).
PIP_FIND_LINKS: where in that image the wheel of torch lies that is meant (the CPU build), when pip would take another.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASE = os.environ.get("AUTOGLM_BASE_IMAGE", "python:3.11-slim-bookworm")
DOCKER = os.environ.get("AUTOGLM_DOCKER", "docker")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("DOCKER_HOST"), reason="DOCKER_HOST is not set: no engine to build on"),
]


def docker(*words: str, check: bool = True) -> str:
    done = subprocess.run([DOCKER, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def built(kind: str) -> str:
    """The image of docker/KIND.Dockerfile, by its tag."""
    tag = f"localhost/autoglm-{kind}:test"
    arguments = {"BASE_IMAGE": BASE, "PIP_FIND_LINKS": os.environ.get("PIP_FIND_LINKS", "")}
    given = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    began = time.monotonic()
    docker("build", "--network", "host", *given, "-f", f"docker/{kind}.Dockerfile", "-t", tag, ".")
    print(f"{kind}: built in {time.monotonic() - began:.0f} s")
    return tag


@pytest.fixture(scope="module", params=["trainer", "airflow", "platform"])
def image(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param, built(request.param)


def inside(tag: str, code: str) -> str:
    """Python in the image as a job runs it: read-only, no network, no capability."""
    flags = (
        "--rm",
        "--network",
        "none",
        "--read-only",
        "--tmpfs",
        "/tmp",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
    )
    return docker("run", *flags, tag, "python", "-c", code)


def test_it_is_nobodys_root(image: tuple[str, str]) -> None:
    assert inside(image[1], "import os; print(os.getuid(), os.access('/opt/venv', os.W_OK))").split() == ["10001", "False"]


def test_it_holds_what_it_is_for_and_no_more(image: tuple[str, str]) -> None:
    kind, tag = image
    there = {
        "trainer": ["torch", "transformers", "deepspeed", "optuna", "boto3"],
        "airflow": ["airflow", "dvc", "mlflow", "kubernetes"],
        "platform": ["airflow", "torch", "deepspeed", "mlflow", "dvc", "fastapi", "psycopg"],
    }
    gone = {
        "trainer": ["airflow", "mlflow", "dvc", "pip"],
        "airflow": ["torch", "deepspeed", "pip"],
        "platform": ["pytest", "pip"],
    }
    code = "import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec(n)])"
    flags = ("--rm", "--network", "none")
    found = docker("run", *flags, tag, "python", "-c", code, *there[kind], *gone[kind]).strip().splitlines()[-1]
    assert found == str(there[kind])
    print(f"{kind}: {int(docker('image', 'inspect', '-f', '{{.Size}}', tag)) / 2**30:.2f} GiB")


@pytest.mark.parametrize("image", ["trainer"], indirect=True)  # the one that every node pulls
def test_the_trainer_stays_small(image: tuple[str, str]) -> None:
    """What it holds over its base: 1.3 GB with the CPU build of torch (the CUDA build brings gigabytes of its own)."""
    code = (
        "import os, torch\n"
        "paths = [os.path.join(at, name) for root in ('/opt/venv', '/opt/autoglm') for at, _, names in os.walk(root) for name in names]\n"
        "print(torch.version.cuda, sum(os.lstat(path).st_size for path in paths))"
    )
    cuda, size = inside(image[1], code).split()[-2:]
    print(f"trainer: {int(size) / 1e9:.2f} GB over its base")
    assert cuda != "None" or int(size) < 1.5e9


def test_the_command_line_runs_in_it(image: tuple[str, str]) -> None:
    assert "Retrain language models" in docker("run", "--rm", "--network", "none", image[1], "autoglm", "--help")
