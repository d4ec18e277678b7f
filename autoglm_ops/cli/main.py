"""`autoglm`: the command line. Thin: it parses, calls a stage or a capability, and prints for people or as JSON.

Exit codes (design §6): 0 done, 2 usage or settings, 3 refused, 75 try again, 1 a bug.
"""

from __future__ import annotations

import logging
import os
import sys
from functools import cache
from importlib import import_module
from itertools import chain
from typing import Any

import typer

from autoglm_ops import __version__, logs
from autoglm_ops.cluster.libraries import LIBRARIES
from autoglm_ops.errors import AutoGLMError

# Typer carries its own copy of click and names only some of its exceptions: this is the base of all wrong calls.
WrongCall: Any = typer.BadParameter.__mro__[2]

# One file per group of commands, in the order of a newcomer's day, and the commands that it holds.
GROUPS: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in ("doctor", "run", "stage", "runs", "replay", "snapshot", "submit", "plan", "launch", "tune")},
    **{name: (name,) for name in ("trial", "data", "report", "cluster")},
    "release": ("promote", "rollback", "ledger"),
    **{name: (name,) for name in ("serve", "feedback", "annotate")},
    "monitor": ("monitor", "feedback"),
    "airflow": ("up", "down", "airflow"),
    "demo": ("demo",),
}


def _options(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@cache
def build(command: str = "") -> typer.Typer:
    """The app with the groups that hold `command`, or with every one. A group is a module of this package with `add_to(app)`.

    A night of the loop starts some fifty processes of one command each; with that command's group alone each starts 0.5 s earlier.
    """
    app = typer.Typer(
        name="autoglm",
        help="Retrain language models every day, promote only on evidence, and let production steer the next search.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_options)
    for group in [name for name, commands in GROUPS.items() if command in commands] or GROUPS:
        import_module(f"autoglm_ops.cli.{group}").add_to(app)
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; every foreseen error is one message on stderr and its exit code."""
    for name, value in LIBRARIES.items():
        os.environ.setdefault(name, value)
    logs.configure(plain=None if "AUTOGLM_LOG_PLAIN" not in os.environ else True)
    try:
        words = sys.argv[1:] if arguments is None else arguments
        command = words[0] if words and words[0] in chain(*GROUPS.values()) else ""
        code = build(command)(args=words, standalone_mode=False)
    except AutoGLMError as error:
        print(f"autoglm: {logs.redact(str(error))}", file=sys.stderr)
        code = error.exit_code
    except WrongCall as error:
        error.show()
        code = 2
    except (typer.Abort, KeyboardInterrupt):
        print("autoglm: interrupted; start the same command again and it goes on where it was", file=sys.stderr)
        code = 130
    logging.shutdown()
    sys.exit(code if isinstance(code, int) else 0)
