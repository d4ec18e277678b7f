"""The lines of `autoglm run` and `autoglm runs`: a reason is text, whatever brackets it holds."""

from __future__ import annotations

import io

from rich.console import Console

from autoglm_ops.cli import run


def test_a_reason_with_brackets_is_printed_as_it_is() -> None:
    reason = "[/pytorch/third_party/gloo/pair.cc:538] Connection reset by peer [127.0.0.1]:4242"
    written = io.StringIO()
    run._show({"state": "failed", "task": "train", "seconds": 1.0, "reason": reason}, Console(file=written, width=200))
    assert reason in written.getvalue()
