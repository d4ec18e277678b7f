"""The git tag `model/v<N>` of a promoted model: code, data and model versions are one commit (design §4).

A tag only moves forward, from the commit of the promotion to the commit that closes the same run. A tag of the
same name from an earlier registry (it was wiped, the tags were not) is kept as `model/old/v<N>-<commit>`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from autoglm_ops import gitcall
from autoglm_ops.contracts.record import locked
from autoglm_ops.gitcall import git

PREFIX = "model/v"


def tag_model(
    root: Path, *, version: int, commit: str = "HEAD", metrics: Mapping[str, float] | None = None, push: bool = True
) -> str:
    """Tag `commit` of the repository `root` as `model/v<version>`, its metrics in the message. Returns the tag's name.

    push: publish it to the remote `origin` too. Done again, it changes nothing. Raises UsageError with git's own words.
    """
    name = f"{PREFIX}{version}"
    target = git(root, "rev-parse", "--verify", f"{commit}^{{commit}}")
    message = "\n".join([f"Model v{version}", "", *(f"{key}: {value:.6g}" for key, value in sorted((metrics or {}).items()))])
    with locked(
        root / git(root, "rev-parse", "--git-common-dir") / "autoglm-tags.lock"
    ):  # git refuses a ref that two push at once
        if push:
            _make_room(root, name, target, remote=True)
        _make_room(root, name, target, remote=False)
        if _local(root, name) != target:
            git(root, "tag", "--force", "--annotate", "--cleanup=verbatim", "-m", message, name, target)
        if push and _remote(root, name) != target:
            git(root, "push", "--quiet", "--force", "origin", f"refs/tags/{name}")
    return name


def commit_of(root: Path, reference: str) -> str | None:
    """The commit `reference` stands on, or None."""
    done = gitcall.run(root, "rev-parse", "--verify", "--quiet", f"{reference}^{{commit}}")
    return done.stdout.decode().strip() or None if done.returncode == 0 else None


def _make_room(root: Path, name: str, target: str, *, remote: bool) -> None:
    """Rename a tag of that name which is not on the way to `target`."""
    found = _remote(root, name) if remote else _local(root, name)
    if not found or found == target or _leads_to(root, found, target):
        return
    kept = f"model/old/{name.removeprefix('model/')}-{found[:8]}"
    if remote:
        git(root, "fetch", "--quiet", "--no-tags", "origin", f"+refs/tags/{name}:refs/tags/{kept}")
        git(root, "push", "--quiet", "origin", f"refs/tags/{kept}")
    else:
        git(root, "update-ref", f"refs/tags/{kept}", f"refs/tags/{name}")


def _local(root: Path, name: str) -> str | None:
    return commit_of(root, f"refs/tags/{name}")


def _remote(root: Path, name: str) -> str | None:
    """The commit the remote's tag stands on: `git ls-remote` shows an annotated tag's commit as `<name>^{}`."""
    lines = git(root, "ls-remote", "origin", f"refs/tags/{name}", f"refs/tags/{name}^{{}}").splitlines()
    found = {reference: oid for oid, _, reference in (line.partition("\t") for line in lines)}
    return found.get(f"refs/tags/{name}^{{}}") or found.get(f"refs/tags/{name}")


def _leads_to(root: Path, earlier: str, later: str) -> bool:
    """Whether `earlier` is `later` or an ancestor of it. A commit that is not here is not."""
    return gitcall.run(root, "merge-base", "--is-ancestor", earlier, later).returncode == 0
