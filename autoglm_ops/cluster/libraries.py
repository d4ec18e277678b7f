"""What libraries read from the environment while they are imported, for every command and for the process that commands are forked from."""

from __future__ import annotations

LIBRARIES = {
    # OpenMP's threads spin at a barrier by default; on a machine with other work a step of two threads then took 1.6 s, asleep 0.3 s.
    "OMP_WAIT_POLICY": "PASSIVE",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Defaults: nothing may phone home or wait for a model hub, and threads that wait sleep."""
