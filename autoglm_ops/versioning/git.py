"""The few git commands a run needs, by subprocess: clone, carry over, commit, push. Every failure is one message."""

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


def git(folder: Path, *arguments: str, stdin: bytes | None = None) -> str:
    """Run git in `folder`; returns stdout without the last newline. Raises UsageError with git's own last line."""
    # GIT_* of a surrounding hook would point git at another repository, so none is passed on but the identity.
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-c", "core.hooksPath=/dev/null", *arguments],
            cwd=folder,
            input=stdin,
            capture_output=True,
            check=False,
            env={**clean, **IDENTITY, "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise UsageError("git is not installed; a run is a commit, so install git and try again") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise UsageError(f"git {' '.join(arguments[:2])} failed in {folder.name}: {said[-1]}")
    return done.stdout.decode(errors="replace").removesuffix("\n")


def require_checkout(folder: Path) -> None:
    """Raises UsageError unless `folder` is the top of a git checkout with at least one commit."""
    try:
        top = git(folder, "rev-parse", "--show-toplevel")
        git(folder, "rev-parse", "--verify", "HEAD")
    except UsageError as error:
        if "not installed" in str(error):
            raise
        raise UsageError(
            f"{folder} is not a git checkout with a commit; a run is a commit, so `git init`, add and commit first"
        ) from error
    if Path(top).resolve() != folder.resolve():
        raise UsageError(f"{folder} is inside the git checkout {top}; run this at its top")


def source_tree(folder: Path) -> str:
    """The tree of HEAD with the uncommitted changes of tracked files laid over it. Nothing in the checkout changes."""
    stash = git(folder, "stash", "create")
    return git(folder, "rev-parse", f"{stash or 'HEAD'}^{{tree}}")


def subtree(folder: Path, tree: str, path: str) -> str:
    """The object id of `path` in `tree`, or "" when it has none."""
    return git(folder, "ls-tree", "--object-only", tree, "--", path)


def changed_files(folder: Path) -> list[str]:
    """Tracked files that differ from HEAD."""
    return git(folder, "diff", "--name-only", "HEAD").split()


def clone(origin: Path, target: Path) -> list[str]:
    """A local clone of `origin` with its uncommitted changes of tracked files as one commit. Returns those files."""
    git(origin, "clone", "--quiet", "--local", "--no-tags", str(origin), str(target))
    changed = changed_files(origin)
    if changed:
        patch = subprocess.run(["git", "diff", "--binary", "HEAD"], cwd=origin, capture_output=True, check=True).stdout
        git(target, "apply", "--index", "--whitespace=nowarn", "-", stdin=patch)
        git(target, "commit", "--quiet", "-m", "Carry over uncommitted changes of tracked files")
    return changed


def commit_all(folder: Path, paths: list[str], message: str) -> str:
    """Commit `paths`, ignored ones included; a commit with nothing new is not made. Returns HEAD's id."""
    git(folder, "add", "--force", "--", *[path for path in paths if (folder / path).exists()])
    if git(folder, "diff", "--cached", "--name-only"):
        git(folder, "commit", "--quiet", "-m", message)
    return git(folder, "rev-parse", "HEAD")


def push_branch(folder: Path, branch: str) -> None:
    """Publish HEAD as `branch` in the origin."""
    git(folder, "push", "--quiet", "--force", "origin", f"HEAD:refs/heads/{branch}")
