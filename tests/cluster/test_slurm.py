"""The Slurm launcher on the Slurm that $SLURM_CONF leads to; skipped, and said, where there is none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cluster_parts import wait_for
from launcher_contract import JOB, WRITE, Bench, LauncherContract, work
from on_slurm import command, needs_slurm
from s3_server import BUCKET, serve_s3

from autoglm_ops.cluster.slurm import SlurmLauncher
from autoglm_ops.contracts.cluster import JobSpec, Resources
from autoglm_ops.contracts.slurm import SlurmPlace
from autoglm_ops.errors import Refused
from autoglm_ops.store import open_store

pytestmark = needs_slurm


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("BENCH_SECRET", "correct-horse-battery")
    uri = str(tmp_path / "store")
    launcher = SlurmLauncher(SlurmPlace(logs=str(tmp_path / "logs")), poll=0.2)
    return Bench(launcher, open_store(uri, tmp_path), uri, sys.executable, tmp_path)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    left = subprocess.run(["squeue", "--noheader", "--format=%j %T"], capture_output=True, text=True, check=True).stdout
    assert left == "", "a test left a job on the cluster"


class TestSlurmLauncher(LauncherContract):
    pass


def test_through_a_bucket_no_disk_is_shared(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s3").mkdir()
    with serve_s3(tmp_path / "s3") as served:
        for name, value in served.items():
            monkeypatch.setenv(name, value)
        bench.uri = f"s3://{BUCKET}/slurm"
        bench.store = open_store(bench.uri, tmp_path)
        plain = {name: served[name] for name in ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION")}
        bench.job = JOB.model_copy(update={"environment": plain, "secrets": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")})
        given = {"in": bench.put("in", rows="a\n")}
        status = bench.run(work(WRITE + "p.joinpath('rows').write_text(open('in/rows').read() * 2)", inputs=given))
        got = bench.store.get(status.outputs["out/made"], tmp_path / "got")
    assert (got / "rows").read_text() == "a\na\n"
    assert served["AWS_SECRET_ACCESS_KEY"] not in "".join(path.read_text() for path in (tmp_path / "logs").iterdir())


def test_no_such_gpus_is_a_reason_at_once(bench: Bench) -> None:
    with pytest.raises(Refused, match="Requested node configuration is not available") as refused:
        bench.job = JOB.model_copy(update={"resources": Resources(gpus=9)})
        bench.run(work("pass"))
    assert refused.value.reasons[0].startswith("unschedulable")


def test_an_array_that_is_not_taken_is_refused_for_each_of_its_jobs(bench: Bench) -> None:
    bench.job = JOB.model_copy(update={"resources": Resources(gpus=9)})
    ended = bench.run_all([work("pass"), work("pass # too")])
    assert [(one.state, one.exit) for one in ended] == [("refused", 3)] * 2
    assert "Requested node configuration is not available" in ended[0].reason


def test_more_nodes_than_there_are_is_a_reason_and_leaves_no_job(bench: Bench) -> None:
    """Slurm takes the job, and says only afterwards that it can never start."""
    bench.job = JOB.model_copy(update={"resources": Resources(nodes=512)})
    try:
        status = bench.run(work("pass"))
    except Refused as refused:
        assert refused.reasons[0].startswith("unschedulable")
    else:
        assert (status.state, status.exit) == ("refused", 75) and status.reason.startswith("unschedulable")


def test_a_job_that_waits_too_long_says_what_for(bench: Bench) -> None:
    """Both GPUs are taken by a job of ours."""
    holder = job("holder", ("sleep", "60"), resources=Resources(gpus=2))
    bench.launcher.submit(holder)
    wait_for(lambda: bench.launcher.look(holder) == "running")
    try:
        status = bench.launcher.run(job("waiter", ("true",), resources=Resources(gpus=2), deadline_seconds=12))
    finally:
        assert bench.launcher.cancel(holder)
    assert (status.state, status.exit) == ("deadline", 3) and "never started: Slurm says Resources" in status.reason
    assert not bench.launcher.cancel(holder)


LAUNCH = r"""
import logging, sys
logging.basicConfig(level="INFO", format="%(created)f %(message)s")
from launcher_contract import Bench, work
from autoglm_ops.cluster.slurm import SlurmLauncher
from autoglm_ops.contracts.cluster import JobSpec, Resources
from autoglm_ops.contracts.slurm import SlurmPlace
from autoglm_ops.store import open_store
from pathlib import Path
folder = Path(sys.argv[1])
bench = Bench(SlurmLauncher(SlurmPlace(logs=str(folder / "logs")), poll=0.2), open_store(str(folder / "store"), folder), str(folder / "store"), sys.executable, folder)
code = "import pathlib, sys, time; p = pathlib.Path('out/made'); p.mkdir(parents=True); p.joinpath('x').touch(); pathlib.Path(sys.argv[1]).open('a').write('started\\n'); [(print('tick', n, flush=True), time.sleep(0.5)) for n in range(int(sys.argv[2]))]"
status = bench.run(work(code).model_copy(update={"command": ("python", "-c", code, str(folder / "started"), sys.argv[2])}))
print(status.state, status.exit)
"""


def launched(folder: Path, ticks: int) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(Path(__file__).parents[1] / "contracts"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    (folder / "launch.py").write_text(LAUNCH)
    return subprocess.Popen(
        [sys.executable, str(folder / "launch.py"), str(folder), str(ticks)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def test_a_signal_to_the_launcher_cancels_the_job_on_the_cluster(tmp_path: Path) -> None:
    process = launched(tmp_path, 200)
    wait_for(lambda: (tmp_path / "started").exists())
    process.send_signal(signal.SIGTERM)
    heard = process.communicate(timeout=60)
    assert heard[0].split() == ["cancelled", "143"], heard[1]
    assert not list((tmp_path / "store" / "notes").glob("[rd]*/*")), "a cancelled job leaves no result"


def test_a_killed_launcher_finds_its_job_again(tmp_path: Path) -> None:
    """As a scheduler or worker that was killed: the second caller follows the job of the first, and the work is done once."""
    first = launched(tmp_path, 12)
    wait_for(lambda: (tmp_path / "started").exists())
    first.kill()
    first.communicate()
    killed = time.time()
    second = launched(tmp_path, 12)
    out, err = second.communicate(timeout=120)
    assert out.split() == ["succeeded", "0"], err
    assert "attempt 1: succeeded" in err and "tick 0\n" in err and "tick 11\n" in err
    assert (tmp_path / "started").read_text() == "started\n"
    [found] = [float(line.split()[0]) for line in err.splitlines() if line.endswith("following it")]
    print(f"found again {found - killed:.2f} s after the kill, the start of a process included")
    assert found - killed < 30


def test_scancel_by_somebody_else_is_a_cancel(bench: Bench) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(bench.launcher.run, job("victim", ("sleep", "60")))
        wait_for(lambda: bench.launcher.look(job("victim", ("sleep", "60"))) == "running")
        subprocess.run(["scancel", "--name=victim"], check=True)
        status = running.result(timeout=60)
    assert (status.state, status.exit) == ("cancelled", 143) and "scancel" in status.reason


def test_a_replaced_attempt_is_swept_away_and_nobody_elses_job(bench: Bench) -> None:
    """What a launcher that was killed for good leaves behind; `autoglm runs prune` calls this."""
    first, second, other = (
        job("bench", ("sleep", "60"), key="a" * 64, attempt=1), job("bench", ("sleep", "60"), key="a" * 64, attempt=2), job("other", ("sleep", "60")),
    )  # fmt: skip
    for each in (first, second, other):
        bench.launcher.submit(each)
    assert bench.launcher.sweep(lambda key, attempt: attempt >= 2, dry=True) == [first.handle]
    assert bench.launcher.look(first) in ("pending", "running")
    assert bench.launcher.sweep(lambda key, attempt: attempt >= 2) == [first.handle]
    wait_for(lambda: bench.launcher.look(first) == "ended")
    assert bench.launcher.cancel(second) and bench.launcher.cancel(other), "these were left alone"


def test_F22_a_job_that_ends_well_without_a_record_is_not_done(bench: Bench, tmp_path: Path) -> None:
    bench.launcher = SlurmLauncher(SlurmPlace(logs=str(tmp_path / "logs"), prefix=("true",)), poll=0.2)
    status = bench.run(work("pass"))
    assert (status.state, status.exit) == ("lost", 75) and status.reason.startswith("no-record")


def test_F28_a_secret_is_in_nothing_that_slurm_shows(bench: Bench, tmp_path: Path) -> None:
    told = job("quiet", ("sleep", "60"), secrets=("BENCH_SECRET",), environment={"SHOWN": "x"})
    bench.launcher.submit(told)
    try:
        wait_for(lambda: bench.launcher.look(told) == "running")
        number = command("squeue", "--noheader", "--format=%A")
        batch = tmp_path / "batch"
        command("scontrol", "write", "batch_script", number, str(batch))
        shown = command("scontrol", "show", "job", "--details", number) + batch.read_text() + command("squeue", "--Format=ALL")
        shown += "".join(_read(path) for path in Path("/proc").glob("[0-9]*/cmdline"))
        shown += "".join(path.read_text() for path in (tmp_path / "logs").iterdir())
        assert "correct-horse" not in shown
    finally:
        assert bench.launcher.cancel(told)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def test_F27_hostile_values_go_through_a_real_slurm_unread(bench: Bench, tmp_path: Path) -> None:
    values = [
        "$(touch evil)",
        "`touch evil`",
        "; touch evil",
        "a'b\"c",
        "{{ conf }}",
        "%j",
        "a,b=c",
        "--uid=0",
        "\n#SBATCH --hold",
        "é",
        "\\",
    ]
    code = "import json, os, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(json.dumps([sys.argv[2:], os.environ['V']]))"
    said = tmp_path / "said"
    command = (sys.executable, "-c", code, str(said), *values)
    status = bench.launcher.run(job("hostile", command, environment={"V": "".join(values)}, workdir=str(tmp_path)))
    assert status.state == "succeeded"
    assert json.loads(said.read_text()) == [values, "".join(values)]
    assert not (tmp_path / "evil").exists()


def job(name: str, command: tuple[str, ...], **more: object) -> JobSpec:
    return JobSpec.model_validate({"name": name, "command": command, "deadline_seconds": 120, **more})
