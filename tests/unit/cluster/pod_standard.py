"""The Pod Security Standard "restricted", as a check of a manifest."""

from __future__ import annotations

from typing import Any


def restricted(pod: dict[str, Any]) -> list[str]:
    """What the Pod Security Standard "restricted" has against a pod (kubernetes.io, pod-security-standards)."""
    spec, wrong = pod["spec"], []
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        wrong += [key] if spec.get(key) else []
    kinds = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
    wrong += [f"volume {volume}" for volume in spec.get("volumes", ()) if not (volume.keys() - {"name"}) <= kinds]
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        own = {**spec.get("securityContext", {}), **container.get("securityContext", {})}
        wrong += [] if own.get("allowPrivilegeEscalation") is False and not own.get("privileged") else ["privilege"]
        wrong += [] if own.get("runAsNonRoot") is True and own.get("runAsUser", 0) != 0 else ["root"]
        wrong += [] if own.get("capabilities") == {"drop": ["ALL"]} else ["capabilities"]
        wrong += [] if own.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost") else ["seccomp"]
        wrong += [f"port {port}" for port in container.get("ports", ()) if port.get("hostPort")]
    return wrong
