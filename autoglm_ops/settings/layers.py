"""params.yaml < --config FILE < AUTOGLM__* environment < --set: merged, checked, and every error names where its key came from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from autoglm_ops.errors import SettingsError
from autoglm_ops.settings.schema import Settings

PREFIX = "AUTOGLM__"
MAX_BYTES = 1 << 20
Tree = dict[str, Any]

# The train-config layout (spec P5) in terms of our keys.
_TRAIN_CONFIG = {
    "model.seq_length": "tokenize.max_length",
    "dataset.path": "data.path",
    "dataset.tokenizer": "tokenize.tokenizer",
    "training.batch_size": "train.batch_size",
    "training.precision": "train.precision",
    "training.optimizer": "train.optimizer",
    "training.epochs": "train.epochs",
    "training.learning_rate": "train.learning_rate",
}


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases and without a key twice (threats F10); `1e-3` is a number, as people mean it."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed", self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a name, not a list or a mapping", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (
            ValueError,
            TypeError,
            AttributeError,
            LookupError,
        ) as error:  # PyYAML lets these out: `!!int abc`, `0x_`, 5,000 digits
            said = f"{str(node.value)[:40]!r} is no {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, said, node.start_mark) from error


# Days stay text: DVC reads no dates from params.yaml, and one value must not compare as two.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(  # YAML 1.1 reads 1e-3 as a string: it wants 1.0e-3
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_yaml(text: str, where: str) -> Any:
    """YAML by the safe rules above. Raises SettingsError with line and column."""
    if len(text) > MAX_BYTES:
        raise SettingsError(f"{where} has {len(text)} characters; at most {MAX_BYTES} are read")
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except RecursionError as error:
        raise SettingsError(f"{where} is nested too deeply to be read; settings are sections of keys") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise SettingsError(f"{where}{at} is not valid YAML: {getattr(error, 'problem', error)}") from error


def load(
    params: Path = Path("params.yaml"),
    *,
    overrides: Iterable[str] = (),
    configs: Iterable[Path] = (),
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The typed settings. Raises SettingsError naming key, value, rule and source."""
    tree, origin = load_tree(params, overrides=overrides, configs=configs, environ=environ)
    return resolve(tree, origin)


def load_tree(
    params: Path,
    *,
    overrides: Iterable[str] = (),
    configs: Iterable[Path] = (),
    environ: Mapping[str, str] | None = None,
) -> tuple[Tree, dict[str, str]]:
    """The merged, unchecked tree, and for each dotted key the source that set it."""
    tree: Tree = {}
    origin: dict[str, str] = {}
    for source, pairs in _layers(params, overrides, configs, os.environ if environ is None else environ):
        for key, value in pairs:
            _put(tree, key, value, source)
            origin[key] = source
    return tree, origin


def resolve(tree: Tree, origin: Mapping[str, str] | None = None) -> Settings:
    """Check a merged tree against the schema."""
    try:
        found = Settings.model_validate(tree)
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(item, origin or {}) for item in error.errors())) from error
    if found.train.teacher and found.tokenize.teacher == "none":
        source = (origin or {}).get("train.teacher", "params.yaml")
        raise SettingsError(f"train.teacher = {found.train.teacher} ({source}) needs a teacher; set tokenize.teacher to tfidf")
    return found


def _layers(
    params: Path, overrides: Iterable[str], configs: Iterable[Path], environ: Mapping[str, str]
) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    yield str(params.name), _flatten(_read(params))
    for config in configs:
        pairs = [(_TRAIN_CONFIG.get(key, key), value) for key, value in _flatten(_read(config))]
        yield str(config), pairs
    names = sorted(name for name in environ if name.startswith(PREFIX))
    for name in names:
        yield f"${name}", [(name[len(PREFIX) :].lower().replace("__", "."), parse_yaml(environ[name], f"${name}"))]
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise SettingsError(f"--set {text!r} must be KEY=VALUE, for example train.learning_rate=3e-4")
        yield f"--set {key}", [(key.strip(), parse_yaml(value, f"--set {key}"))]


def _read(path: Path) -> Tree:
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        raise SettingsError(f"{path} does not exist; run this in a checkout, or name a file that exists") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8") from error
    tree = parse_yaml(text, str(path))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsError(f"{path} must be a mapping of sections, but is a {type(tree).__name__}")
    return tree


def _flatten(tree: Mapping[Any, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted leaves. `tune.space` is one leaf: its keys are data, not settings."""
    pairs: list[tuple[str, Any]] = []
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value and name != "tune.space":
            pairs += _flatten(value, f"{name}.")
        else:
            pairs.append((name, value))
    return pairs


def _put(tree: Tree, dotted: str, value: Any, source: str) -> None:
    *parents, leaf = dotted.split(".")
    # Keys below tune.space hold dots themselves: "tune.space.train.learning_rate" is one entry of the space.
    if dotted.startswith("tune.space."):
        parents, leaf = ["tune", "space"], dotted.removeprefix("tune.space.")
    node = tree
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise SettingsError(f"{dotted} ({source}): {parent!r} is a value, not a section")
    node[leaf] = value


def _explain(item: Mapping[str, Any], origin: Mapping[str, str]) -> str:
    key = ".".join(map(str, item["loc"]))
    source = next((origin[name] for name in (key, *_parents(key)) if name in origin), "params.yaml")
    if item["type"] == "extra_forbidden":
        near = get_close_matches(key, known_keys(), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else "; see params.yaml for the known keys"
        return f"{key} ({source}) is not a known setting{hint}"
    return f"{key} = {item['input']!r} ({source}): {item['msg']}"


def _parents(key: str) -> Iterator[str]:
    while "." in key:
        key = key.rpartition(".")[0]
        yield key


def known_keys(model: type[BaseModel] = Settings, prefix: str = "") -> list[str]:
    """Every dotted key of the schema, sections included."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        keys.append(f"{prefix}{name}")
        inner = next((t for t in (field.annotation, *get_args(field.annotation)) if _is_model(t)), None)
        if inner is not None:
            keys += known_keys(inner, f"{prefix}{name}.")
    return keys


def _is_model(candidate: Any) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, BaseModel)
