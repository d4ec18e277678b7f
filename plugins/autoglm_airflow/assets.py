"""The assets that tie the DAGs together. `daily_retrain` never emits the one that starts it."""

from __future__ import annotations

from airflow.sdk import Asset

DATASET = Asset(name="autoglm_dataset", uri="x-autoglm://dataset")
"""New raw data is there: starts daily_retrain. Whoever delivers data updates it (UI, REST, or a DAG's outlet)."""

PRODUCTION = Asset(name="autoglm_production", uri="x-autoglm://production")
"""Production metrics or drift gave an alert: starts feedback_retune. monitor_production updates it."""

MODEL = Asset(name="autoglm_model", uri="x-autoglm://model/champion")
"""The champion changed. daily_retrain and promote_model update it."""
