"""The parts of `autoglm demo`: the bundled days as production traffic, a client of the server, and the models to compare with.

Labels reach the loop through /v1/feedback alone. The comparisons see the same labels one night later, like the loop:
*frozen* is the first champion for ever; *nightly* is the default configuration retrained every night and never gated;
*again* is that same job, but only when two of the last five days fell under the promise; *tfidf* is TF-IDF with logistic regression
refitted every night.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from pathlib import Path
from statistics import NormalDist
from typing import Any

from autoglm_ops.contracts.record import Completion
from autoglm_ops.contracts.release import ModelRef
from autoglm_ops.data import bundled
from autoglm_ops.data.rows import Row, Shape
from autoglm_ops.data.tables import read_samples
from autoglm_ops.errors import AutoGLMError
from autoglm_ops.evaluation.baseline import tfidf
from autoglm_ops.evaluation.metrics import encode, label_names, score
from autoglm_ops.evaluation.paired import compare
from autoglm_ops.settings import Settings
from autoglm_ops.stages import runs
from autoglm_ops.store import open_store

CHUNK = 200
ASK = 20
"""Texts of one request: enough requests a day for a latency quantile."""
NIGHTLY = ("ingest", "validate", "prepare", "tokenize", "plan", "tune", "train")


@dataclass(frozen=True)
class Traffic:
    """One day's distinct texts and their true labels, which only the feedback route will tell."""

    day: date
    texts: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass
class DayResult:
    """One line of the demo's table. Scores are macro-F1 on the day's texts; None where a model does not exist yet."""

    day: int
    rows: int
    frozen: float | None
    nightly: float | None
    tfidf: float | None
    loop: float
    version: int
    fired: list[str] = field(default_factory=list)
    drift: float | None = None
    verdict: str = ""
    promoted: int | None = None
    patches: list[str] = field(default_factory=list)
    fault: str = ""
    again: float | None = None
    told: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """The levers that the compiler considered and left alone, each with its word."""

    @property
    def changed(self) -> list[str]:
        """The settings that the night patched, by their last name."""
        return [patch.split(" -> ")[0].rpartition(".")[2] for patch in self.patches]


@dataclass(frozen=True)
class PromotionCheck:
    """A promoted version against the one it replaced, on the next day's texts. p: one-sided, that the new one is not worse."""

    version: int
    day: int
    gain: float
    low: float
    high: float
    p_worse: float


def traffic(settings: Settings) -> Iterator[Traffic]:
    """The bundled dataset's days in order; a text belongs to the first day it occurs on."""
    data = settings.data
    by_day: dict[str, dict[str, str]] = {}
    seen: set[str] = set()
    for row in bundled.read(Shape(data.columns.model_dump(), data.epoch), data.days):
        if isinstance(row, Row) and row.text and row.text.strip() and row.label and row.text not in seen:
            seen.add(row.text)
            by_day.setdefault(row.timestamp, {})[row.text] = row.label
    for number in range(data.days):
        day = data.epoch + timedelta(days=number)
        items = by_day.get(day.isoformat(), {})
        yield Traffic(day, tuple(items), tuple(items.values()))


class Client:
    """The production client: asks the server, and tells it the truth at night."""

    def __init__(self, url: str, key: str) -> None:
        import httpx  # here alone: the trainer image has none, and the command line imports this module

        self._http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60)

    def classify(self, batch: Traffic) -> tuple[list[str], list[str], int]:
        """The answers, their ids, and the version that gave them."""
        answers: list[str] = []
        ids: list[str] = []
        version = 0
        for start in range(0, len(batch.texts), ASK):
            names = [f"{batch.day.isoformat()}.{start + place}" for place in range(len(batch.texts[start : start + ASK]))]
            body = {"input": list(batch.texts[start : start + ASK]), "timestamp": batch.day.isoformat(), "ids": names}
            answer = self._post("/v1/classify", body)
            answers += [item["label"] for item in answer["results"]]
            ids += [item["id"] for item in answer["results"]]
            version = answer["version"]
        return answers, ids, version

    def feedback(self, ids: Sequence[str], said: Sequence[tuple[str, str]]) -> int:
        """Return labels, each with its reporter; says how many were accepted."""
        accepted = 0
        for start in range(0, len(ids), CHUNK):
            pairs = zip(ids[start : start + CHUNK], said[start : start + CHUNK], strict=True)
            items = [{"id": name, "label": label, "source": source} for name, (label, source) in pairs]
            accepted += self._post("/v1/feedback", {"items": items})["accepted"]
        return accepted

    def version(self) -> int:
        """The version that answers now."""
        return int(self._http.get("/v1/models").json()["data"][0]["version"])

    def close(self) -> None:
        self._http.close()

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._http.post(path, json=body)
        if answer.status_code != 200:
            raise AutoGLMError(f"{path} answered {answer.status_code}: {answer.text[:300]}")
        found: dict[str, Any] = answer.json()
        return found


def registered_answers(settings: Settings, home: Path, model: ModelRef, texts: Sequence[str]) -> list[str]:
    """What a registered model says, fetched by its digest."""
    folder = home / "models" / model.digest[:16]
    if not folder.exists():
        open_store(settings.store.uri, home).get(model.digest, folder)
    return answers(folder, texts, model.digest)


def answers(folder: Path, texts: Sequence[str], digest: str | None = None) -> list[str]:
    """What the model in `folder` says of `texts`."""
    from autoglm_ops.training.inference import Classifier

    classifier = Classifier.load(folder, digest)
    return [classifier.labels[place] for place in classifier.predict(list(texts), 256).argmax(1)]


@dataclass(frozen=True)
class Nightly:
    """What was trained last night without a gate: a model folder, and TF-IDF's training rows."""

    model: Path
    rows: Path

    def tfidf(self, texts: Sequence[str]) -> list[str]:
        samples = read_samples(self.rows)
        return tfidf([row.text for row in samples], [row.label for row in samples], [row.weight for row in samples], texts)


@dataclass
class TwoOfFive:
    """The rule of thumb: when two of the last five windows were clearly under what the model promised, the same job again, ungated."""

    model: Path
    promised: float
    missed: list[bool] = field(default_factory=list)

    def judge(self, high: float, drop: float) -> bool:
        """Take in a window, `high` the upper end of its metric's interval; whether to train again."""
        self.missed.append(high < self.promised - drop)
        return sum(self.missed[-5:]) >= 2

    def renew(self, model: Path, promised: float) -> None:
        self.model, self.promised, self.missed = model, promised, []


def promise(made: Nightly) -> float:
    """The macro-F1 that a nightly model has on its own gate rows, which it was not trained on."""
    gate = read_samples(made.rows.with_name("gate.parquet"))
    return macro_f1([row.label for row in gate], answers(made.model, [row.text for row in gate]))


def nightly(day: date, checkout: Path, home: Path) -> Nightly:
    """Retrain the default configuration on all labels up to `day`: the same stages in a workspace of their own, no gate, no patches.

    On one rank, at the same global batch: beside the loop's own night, on two cores, a second rank would only take the loop's core.
    """
    alone = ("tune.enabled=false", "release.promote=false", "plan.ranks=1")
    request = runs.Request("demo_nightly", f"nightly__{day}", day, alone, patched=False)
    info = runs.open_run(request, checkout, home)
    root = Path(info.workspace)
    for stage in NIGHTLY:
        done: Completion = runs.execute(info.run, stage, home)
        if done.exit != 0:
            raise AutoGLMError(f"nightly {stage} ended with exit {done.exit}: {'; '.join(done.reasons)}")
    return Nightly(root / "out" / "train" / "model", root / "out" / "prepare" / "train.parquet")


def macro_f1(truth: Sequence[str], given: Sequence[str]) -> float:
    names = label_names(truth, given)
    return round(float(score("macro_f1", encode(truth, names), encode(given, names), len(names))), 4)


def against(truth: Sequence[str], new: Sequence[str], old: Sequence[str], *, seed: int) -> tuple[float, float, float, float]:
    """Gain of `new` over `old` with its 95 % interval, and the one-sided p-value of "not worse"."""
    names = label_names(truth, new, old)
    codes = [encode(labels, names) for labels in (truth, new, old)]
    found = compare("macro_f1", *codes, labels=len(names), resamples=2000, seed=seed)
    gain = found.difference
    one_sided = found.p_value / 2 if gain.estimate < 0 else 1 - found.p_value / 2
    return gain.estimate, gain.low, gain.high, one_sided


def holm(p_values: Sequence[float], alpha: float = 0.05) -> list[bool]:
    """Which of the hypotheses Holm's step-down procedure rejects at family-wise level `alpha` (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    rejected = [False] * len(p_values)
    for rank, place in enumerate(order):
        if p_values[place] > alpha / (len(p_values) - rank):
            break
        rejected[place] = True
    return rejected


def detectable(check: PromotionCheck, checks: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """How much worse a promoted model must be for Holm's first, strictest step over `checks` tests to find it with this `power`.

    From the width of the paired 95 % interval, taken for normal.
    """
    normal = NormalDist()
    spread = (check.high - check.low) / (2 * normal.inv_cdf(0.975))
    return round((normal.inv_cdf(1 - alpha / checks) + normal.inv_cdf(power)) * spread, 4)


def verdict(results: Sequence[DayResult], checks: Sequence[PromotionCheck], first: int = 5) -> dict[str, object]:
    """The demo's claims as numbers: means from day `first` on, promotions, whether any was worse on the next day, and how much worse
    it would have had to be to be found in 80 of 100 cases."""
    late = [result for result in results if result.day >= first] or list(results)

    def mean(name: str) -> float:
        return float(sum(getattr(result, name) for result in late) / len(late))

    worse = holm([check.p_worse for check in checks])
    names = ["frozen", "nightly", "tfidf", "loop", *(["again"] if all(one.again is not None for one in late) else [])]
    means = {name: round(mean(name), 4) for name in names}
    return {
        "days": [late[0].day, late[-1].day],
        "mean_macro_f1": means,
        "loop_above_frozen": round(means["loop"] - means["frozen"], 4),
        "loop_below_nightly": round(means["nightly"] - means["loop"], 4),
        "loop_below_tfidf": round(means["tfidf"] - means["loop"], 4),
        **({"loop_above_two_of_five": round(means["loop"] - means["again"], 4)} if "again" in means else {}),
        "promotions": sum(result.promoted is not None for result in results),
        "worse_next_day": [check.version for check, bad in zip(checks, worse, strict=True) if bad],
        "found_when_worse_by": [detectable(check, len(checks)) for check in checks],
        "checks": [asdict(check) for check in checks],
    }
