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
