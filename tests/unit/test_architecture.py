"""The rules of the house that a reader cannot see in one file: import direction, owners, sizes, dvc.yaml against the graph."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from autoglm_ops.settings import Settings, load
from autoglm_ops.settings.layers import known_keys
from autoglm_ops.stages import graph

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "autoglm_ops"
BASE = {"contracts", "errors", "logs", "catalog", "strict", "gitcall", "tempfolder"}
GROUND = BASE | {"store", "tracking"}
CAPABILITIES = {
    "data", "validation", "versioning", "planning", "training", "tuning", "evaluation", "release", "serving",
    "monitoring", "feedback", "cluster",
}  # fmt: skip
TOP = {"settings", "stages", "cli"}
OWNERS = {
    "great_expectations": {"validation/gx.py"},
    "deepspeed": {"training/engine.py"},
    "boto3": {"store/s3.py"},
    "mlflow": {"tracking/mlflow.py", "release/registry.py"},
    "dvc": {"versioning/dvc.py"},
    "snownlp": set(),
    "pickle": set(),
    "airflow": set(),
}
SINGLE_OWNER = ("optuna", "fastapi", "prometheus_client", "sklearn", "matplotlib", "kubernetes", "peft", "redis")
FILES = sorted(PACKAGE.rglob("*.py"))


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """A file's syntax tree, walked; twenty tests ask for each."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@cache
def imports(path: Path) -> frozenset[str]:
    """Absolute names imported anywhere in a file, lazily or not."""
    names: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def home_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def allowed(package: str) -> set[str]:
    if package in {"errors", "logs"}:
        return {package}
    if package in BASE:
        return BASE
    if package in {"store", "tracking"}:
        return BASE | {package}
    if package in CAPABILITIES:
        return GROUND | {package}
    if package == "settings":
        return GROUND | {package}
    if package == "stages":
        return GROUND | CAPABILITIES | {"settings", "stages"}
    return GROUND | CAPABILITIES | TOP


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    package = home_of(path)
    if package in {"__init__", "__main__"}:
        return
    used = {name.split(".")[1] for name in imports(path) if name.startswith("autoglm_ops.")}
    used -= {"__version__"}
    assert used <= allowed(package), f"{package} may not import {sorted(used - allowed(package))}"


@pytest.mark.parametrize("library", [*OWNERS, *SINGLE_OWNER])
def test_one_owner_per_library(library: str) -> None:
    users = {
        str(path.relative_to(PACKAGE))
        for path in FILES
        if any(name == library or name.startswith(f"{library}.") for name in imports(path))
    }
    if library in OWNERS:
        assert users <= OWNERS[library]
    else:
        assert len({Path(user).parent for user in users}) <= 1, f"{library} is used in {sorted(users)}"
        if library not in {"fastapi", "matplotlib", "optuna"}:
            assert len(users) <= 1, f"{library} is used in {sorted(users)}"


def test_every_room_is_in_the_plan() -> None:
    rooms = {home_of(path) for path in FILES} - {"__init__", "__main__"}
    assert rooms <= GROUND | CAPABILITIES | TOP
    assert not [path.name for path in FILES if re.search(r"utils|helpers|common|misc", path.name)]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_sizes_stay_readable(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 60, f"{path.name}:{node.lineno} {node.name} has {length} lines"


def test_importing_the_package_is_free() -> None:
    probe = "import sys, autoglm_ops, autoglm_ops.errors; print(sorted(m for m in sys.modules if m in {'torch','airflow','mlflow','dvc','pydantic'}))"
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_line_starts_without_heavy_libraries() -> None:
    heavy = (
        "{'torch','transformers','airflow','mlflow','dvc','great_expectations','optuna','deepspeed','boto3','sklearn','pandas'}"
    )
    probe = (
        f"import sys; from autoglm_ops.cli.main import build; build(); print(sorted(m for m in sys.modules if m in {heavy}))"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_params_yaml_and_the_schema_agree() -> None:
    assert (
        load(ROOT / "params.yaml", environ={}).model_dump(exclude={"tune": {"space"}}).keys() == Settings().model_dump().keys()
    )
    written = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))

    def dotted(tree: dict, prefix: str = "") -> set[str]:
        found: set[str] = set()
        for key, value in tree.items():
            found.add(f"{prefix}{key}")
            if isinstance(value, dict) and f"{prefix}{key}" != "tune.space":
                found |= dotted(value, f"{prefix}{key}.")
        return found

    assert dotted(written) == set(known_keys())


def test_dvc_yaml_says_what_the_graph_says() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert list(stages) == list(graph.PIPELINE)
    for name, stage in stages.items():
        spec = graph.find(name)
        deps = {*spec.code, *(f"inputs/{item}.json" for item in spec.inputs), *(f"out/{item}" for item in spec.after)}
        assert set(stage["deps"]) == deps
        assert set(stage["params"]) == set(spec.params)
        assert stage["outs"] == [f"out/{name}"]
        assert stage["cmd"] == f"python -m autoglm_ops stage {name}"
        assert all((ROOT / path).exists() for path in spec.code)


def test_a_stage_depends_on_the_code_it_imports() -> None:
    """Its own packages and nothing it does not declare, or DVC would serve a stale result (design §4)."""
    for name in graph.PIPELINE:
        spec = graph.find(name)
        used = {
            tuple(item.split(".")[1:])
            for item in imports(PACKAGE / "stages" / f"{name}.py")
            if item.startswith("autoglm_ops.") and item.split(".")[1] in CAPABILITIES
        }
        for parts in used:
            paths = {f"autoglm_ops/{'/'.join(parts[:n])}" for n in range(1, len(parts) + 1)}
            paths |= {f"{path}.py" for path in paths}
            assert paths & set(spec.code), f"stage {name} imports {'.'.join(parts)} but does not declare it"


def test_no_module_reads_the_world_on_import() -> None:
    reading = re.compile(
        r"^(time\.(time|monotonic)|datetime\.(now|today)|date\.today|os\.(getenv|environ\.get)|requests\.|httpx\.|open$)"
    )
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.If):
                continue
            calls = [ast.unparse(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)]
            assert not [call for call in calls if reading.search(call)], path


def test_no_text_becomes_a_shell_s() -> None:
    """Commands are lists of words (threats F27): no shell is asked to take one apart."""
    shells = {"sh", "bash", "dash", "zsh", "/bin/sh", "/bin/bash"}
    for path in [*FILES, *sorted((ROOT / "plugins").rglob("*.py")), *sorted((ROOT / "dags").rglob("*.py"))]:
        for node in nodes(path):
            if isinstance(node, ast.List | ast.Tuple):
                words = [item.value for item in node.elts if isinstance(item, ast.Constant)]
                assert not ("-c" in words and shells & set(map(str, words))), f"{path}:{node.lineno}: a shell's -c"
            if not isinstance(node, ast.Call):
                continue
            where, called = f"{path}:{node.lineno}", ast.unparse(node.func)
            assert not [k for k in node.keywords if k.arg == "shell" and ast.unparse(k.value) != "False"], f"{where}: shell="
            assert not re.fullmatch(r"os\.(system|popen|spawn\w*)|subprocess\.(getoutput|getstatusoutput)", called), (
                f"{where}: {called}"
            )
            assert not called.endswith(("BashOperator", "create_subprocess_shell")), f"{where}: {called}"


def test_no_path_of_a_machine_and_no_registry_host() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    hosts = ("py" + "pi.org", "pythonhosted" + ".org", "registry.npm" + "js", "deb.debian" + ".org")
    for name in filter(None, tracked):
        path = ROOT / name
        if path.suffix in {".png", ".lock"} or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        assert not [host for host in hosts if host in text], name
        assert ("/wo" + "rk/main") not in text and ("/ro" + "ot/") not in text, name
