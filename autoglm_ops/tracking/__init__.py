"""Runs, metrics and artefacts: MLflow, with a local spool for when it is away."""
