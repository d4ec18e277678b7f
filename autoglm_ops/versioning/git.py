"""The few git commands a run needs: clone, carry over, commit, push. Every failure is one message."""

from __future__ import annotations

from pathlib import Path

from autoglm_ops import gitcall
from autoglm_ops.errors import UsageError
from autoglm_ops.gitcall import git as git


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
    """A clone of `origin` with its uncommitted changes of tracked files as one commit. Returns those files.

    Its objects are hard links where both lie on one file system (git's own way for a path), and copies where not.
    """
    git(origin, "clone", "--quiet", "--no-tags", str(origin), str(target))
    changed = changed_files(origin)
    if changed:
        patch = gitcall.output(origin, "diff", "--binary", "HEAD")
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
