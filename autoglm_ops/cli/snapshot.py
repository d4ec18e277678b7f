"""`autoglm snapshot`: what `open run` does for a DAG, in this checkout, so that `dvc repro` builds the same graph."""

from __future__ import annotations

from datetime import UTC, datetime

import typer

from autoglm_ops.cli.runs import day
from autoglm_ops.cli.shared import AsJson, AsOfDay, Configs, Overrides, checkout, home, show_json
from autoglm_ops.settings import load_tree
from autoglm_ops.settings.writer import write_resolved
from autoglm_ops.stages import asked, loop
from autoglm_ops.stages import snapshot as world


def snapshot(as_of: AsOfDay = None, overrides: Overrides = None, configs: Configs = None, as_json: AsJson = False) -> None:
    """Write inputs/*.json (dataset, champion, hardware, patches, feedback) and put overrides into params.yaml.

    Then `dvc repro` runs what changed, and nothing else: the stages never look outside the workspace.
    """
    root = checkout()
    path = root / "params.yaml"
    tree, sources = load_tree(path, overrides=overrides or (), configs=configs or ())
    settings = asked.settled(tree, sources, root)
    taken = world.take(settings, root, home(), day(as_of), datetime.now(UTC).date())
    loop.apply_fixed(tree, sources, taken.patches, root)
    written = write_resolved(path, tree, sources)
    taken.write(root)
    if as_json:
        show_json({"as_of": taken.as_of.day, "digest": taken.digest(), "params_written": written})
        return
    model = taken.champion.model
    print(f"as of {taken.as_of.day}: {len(taken.source.files)} files, {taken.feedback.rows} feedback rows")
    print(f"champion: {f'{model.name} v{model.version}' if model else 'none yet'}; patches: {len(taken.patches.patches)}")
    if written:
        print(f"written into params.yaml: {', '.join(written)}")
    print("inputs/ is ready; next: dvc repro")


def add_to(app: typer.Typer) -> None:
    app.command()(snapshot)
