"""One call of git, by subprocess: no hook, no signature, no surrounding repository, our identity. Every failure is one message."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from autoglm_ops.errors import UsageError

IDENTITY = {
    "GIT_AUTHOR_NAME": "AutoGLM Ops",
    "GIT_AUTHOR_EMAIL": "autoglm-ops@localhost",
    "GIT_COMMITTER_NAME": "AutoGLM Ops",
    "GIT_COMMITTER_EMAIL": "autoglm-ops@localhost",
}
OPTIONS = ("-c", "core.hooksPath=/dev/null", "-c", "tag.gpgSign=false")


def run(folder: Path, *arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run git in `folder`, whatever comes of it. Raises UsageError where there is no git."""
    # GIT_* of a surrounding hook would point git at another repository, so none is passed on but the identity.
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment = {**clean, **IDENTITY, "LC_ALL": "C"}
    try:
        return subprocess.run(
            ["git", *OPTIONS, *arguments], cwd=folder, input=stdin, capture_output=True, check=False, env=environment
        )
    except FileNotFoundError as error:
        raise UsageError("git is not installed; a run and a model are commits, so install git and try again") from error


def output(folder: Path, *arguments: str, stdin: bytes | None = None) -> bytes:
    """What git says on stdout, byte for byte. Raises UsageError with git's own last line."""
    done = run(folder, *arguments, stdin=stdin)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise UsageError(f"git {' '.join(arguments[:2])} failed in {folder.name}: {said[-1]}")
    return done.stdout


def git(folder: Path, *arguments: str, stdin: bytes | None = None) -> str:
    """`output` as text, without the last newline."""
    return output(folder, *arguments, stdin=stdin).decode(errors="replace").removesuffix("\n")
