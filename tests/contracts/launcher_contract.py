"""What every launcher must do. A subclass gives `bench`: a launcher, a store both sides reach, and the interpreter where jobs run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from autoglm_ops.cluster import exchange
from autoglm_ops.cluster.dispatch import run_work, run_works
from autoglm_ops.contracts.cluster import JobSpec, JobStatus, Launcher, Store, Work
from autoglm_ops.contracts.record import digest_path
from autoglm_ops.errors import Tampered

WRITE = "import os, pathlib; p = pathlib.Path('out/made'); p.mkdir(parents=True); "


def work(code: str, **more: object) -> Work:
    return Work(name="bench", command=("python", "-c", code), **{"outputs": ("out/made",), "deadline_seconds": 120.0, **more})


JOB = JobSpec(name="bench", command=(), deadline_seconds=180)


@dataclass
class Bench:
    launcher: Launcher
    store: Store
    uri: str
    python: str
    folder: Path
    job: JobSpec = JOB

    def run(self, work: Work) -> JobStatus:
        return run_work(work, self.job.model_copy(update={"store": self.uri}), self.launcher, self.store, self.python)

    def run_all(self, works: list[Work], slots: int | None = None) -> list[JobStatus]:
        return run_works(works, self.job.model_copy(update={"store": self.uri}), self.launcher, self.store, self.python, slots)

    def put(self, name: str, **files: str) -> str:
        folder = self.folder / "given" / name
        folder.mkdir(parents=True)
        for path, text in files.items():
            (folder / path).write_text(text)
        return self.store.put(folder)

    def lie(self, digest: str, name: str) -> None:
        """Make the store answer with other bytes of the same length for a file of a folder it holds."""
        if not self.uri.startswith("s3://"):
            path = Path(self.uri) / digest / name
            path.chmod(0o644)
            path.write_bytes(bytes(len(path.read_bytes())))
            return
        import boto3

        bucket, _, prefix = self.uri.removeprefix("s3://").partition("/")
        client = boto3.client("s3")
        listing = client.get_object(Bucket=bucket, Key=f"{prefix}/folders/{digest}")["Body"].read().decode()
        [sha] = [line.partition("\t")[2] for line in listing.splitlines() if line.startswith(f"{name}\t")]
        size = client.head_object(Bucket=bucket, Key=f"{prefix}/files/{sha}")["ContentLength"]
        client.put_object(Bucket=bucket, Key=f"{prefix}/files/{sha}", Body=bytes(size), Metadata={"sha256": sha})


class LauncherContract:
    def test_inputs_go_in_and_outputs_come_back_by_digest(self, bench: Bench, tmp_path: Path) -> None:
        given = {".": bench.put("base", settings="3"), "out/before": bench.put("before", rows="a\nb\n")}
        code = WRITE + "p.joinpath('rows').write_text(open('out/before/rows').read() * int(open('settings').read()))"
        status = bench.run(work(code, inputs=given))
        assert (status.state, status.exit) == ("succeeded", 0)
        got = bench.store.get(status.outputs["out/made"], tmp_path / "got")
        assert (got / "rows").read_text() == "a\nb\n" * 3
        assert digest_path(got) == status.outputs["out/made"]

    @pytest.mark.parametrize("code", [1, 2, 3, 75])
    def test_exit_codes_pass_through(self, bench: Bench, code: int) -> None:
        status = bench.run(work(f"raise SystemExit({code})"))
        assert (status.state, status.exit, status.outputs) == ("failed", code, {})

    def test_done_work_is_not_done_again(self, bench: Bench) -> None:
        again = work(WRITE + "p.joinpath('x').write_text(os.urandom(8).hex())")
        assert bench.run(again).outputs == bench.run(again).outputs

    def test_failed_work_is_tried_again_under_the_next_number(self, bench: Bench) -> None:
        failing = work("raise SystemExit(3)")
        bench.run(failing)
        bench.run(failing)
        assert exchange.newest(bench.store, exchange.describe(bench.store, failing)) == 2

    def test_of_many_at_once_each_has_its_own_inputs_end_and_next_attempt(self, bench: Bench, tmp_path: Path) -> None:
        code = WRITE + "n = int(open('in/n').read()); n == 1 and sys.exit(3); p.joinpath('n').write_text(str(n * n))"
        works = [work(f"import sys; {code}", inputs={"in": bench.put(f"in{n}", n=str(n))}) for n in range(3)]
        ended = bench.run_all(works, slots=2)
        assert [(one.state, one.exit) for one in ended] == [("succeeded", 0), ("failed", 3), ("succeeded", 0)]
        got = [bench.store.get(ended[n].outputs["out/made"], tmp_path / str(n)) / "n" for n in (0, 2)]
        assert [path.read_text() for path in got] == ["0", "4"]
        assert [one.exit for one in bench.run_all(works)] == [0, 3, 0]
        assert [exchange.newest(bench.store, exchange.describe(bench.store, one)) for one in works] == [1, 2, 1]

    def test_a_deadline_is_a_refusal(self, bench: Bench) -> None:
        status = bench.run(work("import time; time.sleep(600)", deadline_seconds=1.0))
        assert (status.state, status.exit) == ("deadline", 3)

    def test_a_secret_reaches_the_work_and_no_record(self, bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
        code = (
            WRITE
            + "print('I say', os.environ['BENCH_SECRET'], flush=True); p.joinpath('n').write_text(str(len(os.environ['BENCH_SECRET'])))"
        )
        status = bench.run(work(code, secrets=("BENCH_SECRET",)))
        assert status.state == "succeeded"
        heard = capfd.readouterr()
        assert "I say ***" in heard.err and "correct-horse" not in heard.err + heard.out

    def test_an_output_that_holds_a_secret_is_refused(self, bench: Bench) -> None:
        status = bench.run(work(WRITE + "p.joinpath('env').write_text(str(dict(os.environ)))", secrets=("BENCH_SECRET",)))
        assert (status.state, status.exit, status.outputs) == ("failed", 3, {})
        assert "BENCH_SECRET" in status.reason and "correct-horse" not in status.reason

    def test_what_was_kept_is_there_for_the_next_attempt(self, bench: Bench) -> None:
        code = (
            "import os, pathlib, sys, time; c = pathlib.Path('scratch'); c.mkdir(exist_ok=True); seen = sorted(x.name for x in c.glob('step-*'))\n"
            "if not seen:\n"
            "    (c / '.tmp').mkdir(); (c / '.tmp' / 'w').write_text('7'); os.replace(c / '.tmp', c / 'step-1'); sys.exit(75)\n"
            "p = pathlib.Path('out/made'); p.mkdir(parents=True); p.joinpath('w').write_text((c / 'step-1' / 'w').read_text())"
        )
        resumed = work(code, keeps=("scratch/step-*",))
        assert bench.run(resumed).exit == 75
        assert bench.run(resumed).state == "succeeded"

    @pytest.mark.parametrize("path", ["../outside", "/etc/cron.d"])
    def test_no_path_leads_out_of_the_work_folder(self, bench: Bench, path: str) -> None:
        status = bench.run(work("", inputs={path: bench.put("x", y="z")}))
        assert (status.state, status.exit) == ("failed", 3) and "outside its work folder" in status.reason

    def test_an_input_that_the_store_lacks_is_refused(self, bench: Bench) -> None:
        status = bench.run(work("", inputs={"in": "0" * 64}))
        assert (status.state, status.exit) == ("failed", 3) and "no artefact" in status.reason

    def test_a_store_that_lies_about_an_input_is_refused_by_the_job(self, bench: Bench) -> None:
        given = bench.put("given", rows="the rows that were meant")
        bench.lie(given, "rows")
        status = bench.run(work(WRITE + "p.joinpath('x').write_text('1')", inputs={"in": given}))
        assert (
            (status.state, status.exit, status.outputs) == ("failed", 3, {})
            and "rows" in status.reason
            and "sha256" in status.reason
        )

    def test_a_store_that_lies_about_an_output_is_refused_here(self, bench: Bench, tmp_path: Path) -> None:
        made = bench.run(work(WRITE + "p.joinpath('weights').write_text('what was learned')")).outputs["out/made"]
        bench.lie(made, "weights")
        with pytest.raises(Tampered, match="weights"):
            bench.store.get(made, tmp_path / "got")
        assert not (tmp_path / "got").exists()
