"""The model registry in MLflow: versions with the digest of their bytes, and the alias `champion`. An owner of mlflow.

A version's tags say what the registry itself cannot: digest, run key, content key, the last day of its data, its metric.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from autoglm_ops.contracts.release import Champion, ModelRef
from autoglm_ops.errors import Refused, UsageError
from autoglm_ops.tracking.mlflow import reached

ALIAS = "champion"
DIGEST, RUN_KEY, CONTENT_KEY = "autoglm.digest", "autoglm.run_key", "autoglm.content_key"
DATA_UNTIL, METRIC, GIT_COMMIT = "autoglm.data_until", "autoglm.metric", "autoglm.git_commit"
_URI = re.compile(
    r"models:/(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,62})(@(?P<alias>[A-Za-z0-9][A-Za-z0-9._-]{0,62})|/(?P<version>[0-9]{1,9}))"
)
_ABSENT = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}


@dataclass(frozen=True)
class Version:
    """One registered version as it stands now."""

    model: ModelRef
    tags: dict[str, str]
    run_id: str


class Registry:
    """Versions of one model. `client` is an MlflowClient (tracking.mlflow.connect); `uri` is for messages.

    Every method raises TryAgain when MLflow is away.
    """

    def __init__(self, client: Any, uri: str, name: str) -> None:
        self._client, self._uri, self.name = client, uri, name

    def register(self, digest: str, source: str, run_id: str, tags: dict[str, str]) -> Version:
        """Register the model of that digest once for `tags[RUN_KEY]`; asked again, it answers the same version."""
        run = tags[RUN_KEY]
        with reached(self._uri):
            self._ensure_model()
            query = f"name = '{self.name}' and tags.`{RUN_KEY}` = '{run}' and tags.`{DIGEST}` = '{digest}'"
            found = self._client.search_model_versions(query)
            if found:
                return self._version(min(found, key=lambda version: int(version.version)))
            made = self._client.create_model_version(
                self.name, source=source, run_id=run_id, tags={**tags, DIGEST: digest}, await_creation_for=0
            )
            return self._version(made)

    def version(self, number: int) -> Version:
        """Version `number`. Raises UsageError when there is none."""
        found = self._look("get_model_version", self.name, str(number))
        if found is None:
            known = [version.model.version for version in self.versions()]
            raise UsageError(f"{self.name} has no version {number}; it has {', '.join(map(str, known[:10])) or 'none yet'}")
        return self._version(found)

    def versions(self) -> list[Version]:
        """Every version, the latest first."""
        with reached(self._uri):
            found = self._client.search_model_versions(f"name = '{self.name}'", order_by=["version_number DESC"])
        return [self._version(item) for item in found]

    def digests(self) -> set[str]:
        """The models that any version of any name stands for."""
        with reached(self._uri):
            page = self._client.search_model_versions()
            found = list(page)
            while page.token:
                page = self._client.search_model_versions(page_token=page.token)
                found += page
        return {digest for item in found if (digest := dict(item.tags).get(DIGEST))}

    def alias(self, name: str = ALIAS) -> Version | None:
        """The version the alias stands on, whoever put it there; None when it stands nowhere."""
        found = self._look("get_model_version_by_alias", self.name, name)
        return self._version(found) if found is not None else None

    def champion(self) -> Champion:
        """The champion with what its tags say. Raises Refused when a hand put the alias on a version nobody here registered."""
        version = self.alias()
        if version is None:
            return Champion()
        metric = version.tags.get(METRIC)
        return Champion(
            model=_checked(version),
            data_until=version.tags.get(DATA_UNTIL),
            content_key=version.tags.get(CONTENT_KEY),
            metric=float(metric) if metric else None,
        )

    def set_champion(self, version: int) -> None:
        """Move the alias."""
        with reached(self._uri):
            self._client.set_registered_model_alias(self.name, ALIAS, str(version))

    def resolve(self, uri: str) -> ModelRef:
        """The model behind `models:/name@alias` or `models:/name/version`. Raises UsageError for any other form, or none there."""
        parts = _URI.fullmatch(uri)
        if parts is None:
            raise UsageError(f"{uri!r} names no model: write models:/NAME@ALIAS or models:/NAME/VERSION")
        other = Registry(self._client, self._uri, parts["name"])
        if parts["version"]:
            return _checked(other.version(int(parts["version"])))
        found = other.alias(parts["alias"])
        if found is None:
            raise UsageError(
                f"no version of {parts['name']} has the alias {parts['alias']!r}; promote one first: autoglm promote VERSION"
            )
        return _checked(found)

    def _ensure_model(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _look(self, method: str, *arguments: str) -> Any | None:
        """A lookup whose "not there" is an answer."""
        from mlflow.exceptions import MlflowException

        with reached(self._uri):
            try:
                return getattr(self._client, method)(*arguments)
            except MlflowException as error:
                if error.error_code in _ABSENT:
                    return None
                raise

    def _version(self, found: Any) -> Version:
        tags = dict(found.tags)
        model = ModelRef(name=found.name, version=int(found.version), digest=tags.get(DIGEST, ""))
        return Version(model=model, tags=tags, run_id=found.run_id or "")


def _checked(version: Version) -> ModelRef:
    if not version.model.digest:
        raise Refused(
            f"{version.model.name} v{version.model.version} has no {DIGEST} tag, so its bytes cannot be checked: it was not "
            "registered by autoglm; move the alias to one that was (autoglm promote VERSION, or autoglm rollback)"
        )
    return version.model
