"""The newest values of a run for Prometheus' node exporter (its textfile collector): one file, replaced whole."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from autoglm_ops.contracts.record import write_text

PREFIX = "autoglm_train_"
HELP = {
    "loss": "Training loss of the last step, on rank 0.",
    "gradient_norm": "Norm of the last step's gradient before clipping.",
    "learning_rate": "Learning rate of the last step.",
    "tokens_per_second": "Tokens that are no padding, over all ranks, since this process began.",
    "mfu": "Model FLOPs utilisation, of the stated peak of the devices.",
    "memory_bytes": "Peak resident memory of rank 0 (on GPUs the peak of the allocator).",
    "checkpoint_age_seconds": "Since the newest checkpoint was published, or since the start.",
    "restarts": "How often this run was started again.",
    "step": "Optimizer steps done.",
    "validation_loss": "Loss on the validation rows.",
}


def write_textfile(path: Path, run: str, values: Mapping[str, float]) -> None:
    """Gauges in the text format (https://prometheus.io/docs/instrumenting/exposition_formats/), labelled with the run."""
    lines = []
    label = run.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    for name, value in sorted(values.items()):
        if name in HELP and not math.isnan(value):
            lines += [
                f"# HELP {PREFIX}{name} {HELP[name]}",
                f"# TYPE {PREFIX}{name} gauge",
                f'{PREFIX}{name}{{run="{label}"}} {value:.12g}',
            ]
    write_text(path, "\n".join(lines) + "\n")
