"""A manifest against the shapes of Kubernetes' API, as its own clients carry them."""

from __future__ import annotations

import json
from typing import Any

from kubernetes import client


def read(manifest: dict[str, Any], kind: str) -> Any:
    """The manifest as the API's own model reads it; what the model does not know, or not in that shape, is lost and so would differ."""

    class Answer:
        data = json.dumps(manifest)

    api = client.ApiClient()
    found = api.deserialize(Answer(), kind)
    assert api.sanitize_for_serialization(found) == manifest
    return found


def read_jobset(manifest: dict[str, Any]) -> None:
    """A JobSet against the models that its own API (jobset.x-k8s.io/v1alpha2) generates. Raises ValueError for what it does not take.

    Kubeflow's package carries them. They check types and what must be there; a field they do not know they drop, and so it would differ.
    Values of an enumeration are strings to them.
    """
    from kubeflow_trainer_api.models import JobsetV1alpha2JobSet

    found = JobsetV1alpha2JobSet.from_dict(manifest)
    if found is None or found.to_dict() != manifest:
        raise ValueError(f"a field that JobSet does not know: {manifest}")
