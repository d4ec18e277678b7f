"""The shape of params.yaml. A field's docstring is its help text; a test holds that this and params.yaml agree."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, field_validator

from autoglm_ops.contracts.space import spoken
from autoglm_ops.settings.kinds import Count, Name, Positive, Section, Seed, Share
from autoglm_ops.settings.placement import Cluster, Notify, Recovery, Serving, StoreSettings, Tracking


class Columns(Section):
    """What the user's own dataset calls our columns."""

    text: str = "text"
    label: str = "label"
    timestamp: str = "timestamp"
    id: str = "id"
    source: str = "source"


class Data(Section):
    path: str | None = None
    """A JSONL, CSV or Parquet file or a folder of them; null is the bundled dataset of Chinese reviews."""
    epoch: date = date(2026, 1, 1)
    """The day of the bundled dataset's first partition, and of rows that carry no timestamp."""
    days: Count = 14
    """Into how many equal daily partitions the bundled dataset is cut, in file order."""
    columns: Columns = Columns()
    labels: tuple[str, ...] | None = None
    """The allowed labels; null takes those that occur."""
    window_days: int = Field(default=0, ge=0)
    """Train on the last N days only; 0 is all of them."""
    labelled_until: date | None = None
    """Labels of the source later than this day are not read: they must come back as feedback."""
    feedback: bool = True
    """Add the labels that production returned."""


class Dedup(Section):
    enabled: bool = True
    threshold: Share = 0.8
    """Least Jaccard similarity of a near-duplicate's word n-grams to an earlier document's."""
    ngram: Count = 5
    bands: Count = 20
    rows: Count = 6
    """Hashes per band: more find fewer pairs, more bands find more."""
    memory_mb: Count = 256
    """Memory a task may take for its arrays."""


class Log(Section):
    source: str | None = None
    """A log of events to follow: a folder of JSON Lines, s3://bucket/prefix or redis://host:port/stream; null asks the command line."""
    out: str | None = None
    """Where its documents go; null is $AUTOGLM_HOME/followed. flow.location can name it."""
    handlers: str | None = None
    """A YAML file of `{on: event type, handler: name, options: {…}}`, relative to the checkout; read again while it runs."""
    batch_events: Count = 10_000
    batch_seconds: Positive = 10
    """A commit is made of so many events, or when the oldest has waited so long."""


class Flow(Section):
    location: str | None = None
    """Raw text to build a dataset from: a path, s3://bucket/prefix or https://host/file; null asks the command line."""
    document: Literal["line", "file"] = "line"
    """What one document of a plain text file is."""
    steps: tuple[str | dict[str, dict[str, Any]], ...] = ("normalise", "pii")
    """In order: a step's name, or `name: {option: value}`."""
    dedup: Dedup = Dedup()
    source_cap: int | None = Field(default=None, ge=1)
    """Documents of one source at most; an absolute number, so that nobody floods the corpus."""
    mix: dict[str, float] = Field(default_factory=dict)
    """Weights by source; sources without one are left out. Empty keeps everything."""
    protect: tuple[str, ...] = ()
    """Test sets, as locations: a document that shares text with one of them is dropped (contaminated)."""
    shard_mb: Count = 256
    """Bytes of input a task reads."""
    suite: str | None = "expectations/documents.yaml"
    """The expectations a dataset must meet before it is published; null asks for none."""
    http_hosts: tuple[str, ...] = ()
    """Hosts that https locations may name; none by default."""
    log: Log = Log()


class Validation(Section):
    suite: str = "expectations/raw.yaml"
    """The expectations every raw dataset must meet."""
    budget_share: Share = 0.005
    budget_rows: int = Field(default=100, ge=0)
    """The run stops when more rows than either budget are quarantined (whichever is larger)."""
    min_chars: Count = 1
    max_chars: Count = 20_000


class Augment(Section):
    copies: int = Field(default=0, ge=0, le=16)
    """Altered copies of each training row, 0 for none. They count as rows: at the same train.epochs there are more steps."""
    operations: tuple[Literal["delete", "swap", "crop", "shuffle"], ...] = ("delete", "swap", "crop", "shuffle")
    """A copy takes one of these."""
    share: float = Field(default=0.1, gt=0, lt=1)
    """Of a row's units (words, or single Chinese characters), how many delete and swap touch."""


class Prepare(Section):
    holdout: Share = 0.15
    """Share of distinct texts, by content hash, that no model is ever trained on."""
    validation: Share = 0.1
    """Share, by content hash, for early stopping and tuning."""
    gate_days: Count = 3
    """The gate judges on the held-out rows of this many last days."""
    near_copies: Literal["keep", "drop"] = "keep"
    """Training and validation rows that are nearly a held-out text: keep does not look for them, drop takes them out and counts them."""
    half_life_days: Annotated[float, Field(ge=0)] | Literal["auto"] = 0.0
    """A training row so many days older than the last weighs half in the loss; 0 weighs all days alike, auto measures on the last days
    which half-life would have answered them best."""
    augment: Augment = Augment()

    @field_validator("half_life_days", mode="wrap")
    @classmethod
    def _days_or_auto(cls, value: Any, usual: ValidatorFunctionWrapHandler) -> Any:
        try:
            return usual(value)
        except ValidationError as error:  # one of each kind that it might have been
            raise ValueError("give a number of days, 0 or more, or auto") from error


class Tokenize(Section):
    tokenizer: str | None = None
    """A tokenizer folder to load; null trains one on the training rows."""
    vocabulary: int = Field(default=8000, ge=64, le=200_000)
    longest: int = Field(default=2, ge=2, le=32)
    """Characters of a token at most, of a tokenizer that is trained."""
    max_length: int = Field(default=128, ge=8, le=8192)
    """Tokens per row, the rest is cut."""
    teacher: Literal["none", "tfidf"] = "none"
    """Who says what it thinks of each training row, having seen neither it nor its copies: TF-IDF with logistic regression, for train.teacher."""


class Model(Section):
    name: str = "glm-small"
    """A built-in configuration, or the path of any Hugging Face sequence classifier."""
    hidden_size: int | None = Field(default=None, ge=16, le=16384)
    layers: int | None = Field(default=None, ge=1, le=256)
    heads: int | None = Field(default=None, ge=1, le=256)
    dropout: Share | None = None
    """Null keeps the configuration's own value, here and above."""


class Plan(Section):
    ranks: int | None = Field(default=None, ge=1)
    micro_batch: int | None = Field(default=None, ge=1)
    zero_stage: Literal[0, 1, 2, 3] | None = None
    """Null lets the planner choose, here and above; it states why."""


class TuneBudget(Section):
    trials: int | None = Field(default=None, ge=1, le=100_000)
    """Configurations that may be started; null is tune.trials, and 512 for strategies that pause and continue."""
    steps: int | None = Field(default=None, ge=1)
    """Steps of all trials together; null is tune.trials x tune.steps."""
    cost: float | None = Field(default=None, gt=0)
    """Money: a hard stop, the seconds of tune.seconds at tune.budget.hourly."""
    hourly: float = Field(default=0.0, ge=0)
    """What an hour of a machine that trains a trial costs."""


class Tune(Section):
    enabled: bool = True
    strategy: str = "tpe"
    """random, grid, tpe, gp, hyperband, halving or tunemaster, or a name that another package offers."""
    trials: int = Field(default=8, ge=1, le=10_000)
    steps: Count = 80
    """Optimiser steps a trial may take."""
    parallel: int = Field(default=1, ge=1, le=1024)
    """Trials of a round, which are asked for together and may be trained at once: in Airflow each is a mapped task. 1 trains them one
    after the other in a warm process; the more, the less a trial can learn from those before it."""
    objectives: tuple[Literal["quality", "latency", "size"], ...] = ("quality",)
    """With several, the trial at the knee of their Pareto front is chosen. latency is counted (operations for one row), so that every
    machine chooses alike; what was measured stands beside it in completed/tune.json."""
    looks: int = Field(default=3, ge=1, le=50)
    """How often a trial is scored at most; a score costs about as much as twenty steps."""
    folds: int = Field(default=1, ge=1, le=20)
    """Above 1, a trial trains so many models, each scored on its part of the training rows (k-fold)."""
    seconds: Positive = 240.0
    """A hard stop: the stage fails and says so, rather than tuning on. Of training, of all trials together: of those trained at once
    (tune.parallel), the sum, looked at when a round is back. Time in a cluster's queue does not count."""
    budget: TuneBudget = TuneBudget()
    history: bool = True
    """Let earlier studies warm-start a tunemaster study."""
    space: dict[str, dict[str, Any]] = {}
    """Settings key -> {loguniform|uniform|int|adaptive: [low, high]} or {choice: [...]}, or the same as text: tune.adaptive(32, 256)."""

    @field_validator("objectives")
    @classmethod
    def _begin_with_quality(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value[:1] != ("quality",) or len(set(value)) != len(value):
            raise ValueError("objectives begin with quality, and each is named once: [quality, latency, size]")
        return value

    @field_validator("space", mode="before")
    @classmethod
    def _in_words(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: spoken(entry) if isinstance(entry, str) else entry for key, entry in value.items()}


class Train(Section):
    learning_rate: Positive = 3e-3
    batch_size: Count = 32
    """The global batch, over all ranks and accumulation steps, exactly."""
    epochs: Positive = 3.0
    max_steps: int | None = Field(default=None, ge=1)
    weight_decay: float = Field(default=1.0, ge=0)
    warmup_share: Share = 0.1
    schedule: Literal["linear", "cosine"] = "cosine"
    """How the learning rate falls to zero after the warm-up."""
    token_dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of tokens blanked in each training batch."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    teacher: Share = 0.0
    """Share of a training row's target that is the opinion of tokenize.teacher, the rest being its label."""
    gradient_clip: Positive = 1.0
    average: Share | None = None
    """Share of the last steps whose weights are averaged, the mean being published; 0 publishes those of the best evaluation. null is
    all steps after the first 300, and 0.3 at least, for a built-in model, which is new, and 0 for a folder's."""
    initial: Literal["random", "odds"] = "random"
    """How the embeddings of a new model begin; odds: with each token's log odds of the labels on the training rows, so that few steps
    tell much."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    quantization: Literal["none", "int8"] = "none"
    """What is published; int8: linear layers and embeddings in whole numbers, a quarter of the bytes. Narrow models are not
    faster by it, glm-small among them. The gate judges, and the server serves, that model; README lists the families."""
    optimizer: Literal["adamw"] = "adamw"
    evaluations: Count = 3
    """How often the validation rows are scored; where no weights are averaged, those of the best evaluation are published."""


class Evaluate(Section):
    metric: Literal["macro_f1", "accuracy"] = "macro_f1"
    resamples: int = Field(default=2000, ge=200, le=100_000)
    batch_size: Count = 256


class Gate(Section):
    minimum: Share = 0.6
    """A first champion must reach this on the gate's rows."""
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Two-sided level of the paired test."""
    min_rows: Count = 100
    """Fewer rows than this are no evidence."""
    slice_drop: Share = 0.1
    """A slice of at least min_rows rows that falls by more than this, significantly, rejects."""
    max_model_mb: Positive = 4000.0
    margin: Share = 0.05
    """When production drifted, a candidate with newer data is promoted if it is not worse by this much; 0 always demands better.

    As much as monitor.quality_drop, the loss that counts as one. 570 gate rows can show 0.03 only of a candidate that scored 0.008 better
    on them, so that a champion stayed that lost 0.11 on the next day, when texts of another domain came.
    """


class Release(Section):
    name: Name = "autoglm"
    promote: bool = True
    """False registers and never moves the champion (backfills, experiments)."""
    approval: bool = False
    """True waits for a person in Airflow before promotion."""


class Monitor(Section):
    psi: Positive = 0.2
    kl: Positive = 0.1
    min_rows: Count = 200
    """Windows smaller than this say nothing."""
    quality_drop: Share = 0.05
    """Quality signal: the window's metric is this far under the champion's at promotion, beyond its interval."""
    window_days: Count = 1
    embedding: float = Field(default=0.15, ge=0)
    """Least shift of the champion's embeddings of requests that is drift, above what chance explains; 0 leaves it out."""
    ks: Positive = 0.1
    """Least Kolmogorov-Smirnov distance of text lengths that is drift, whatever the number of rows."""
    latency_seconds: Positive = 1.0
    """Latency signal: 95 % of requests are answered within this, beyond the interval of that quantile."""
    error_rate: Share = 0.02
    """Error signal: the share of requests that failed by our fault is above this, beyond its interval."""
    min_requests: Count = 30
    """Fewer requests than this say nothing of latency, errors and cost."""
    price_per_hour: float = Field(default=0.0, ge=0)
    """What an hour of serving costs, in any currency; 0 says nothing of cost."""
    cost_per_thousand: Positive | None = None
    """Cost signal: a thousand answers cost more than this; null never fires."""
    variance_days: int = Field(default=7, ge=2)
    """Variance signal: over this many days quality moved from day to day more than chance does."""
    metrics: str | None = None
    """A file of Prometheus text, relative to the checkout, to read latency and errors from (counts since the server's start) instead
    of the requests database."""


class Feedback(Section):
    trials: int = Field(default=4, ge=1, le=1000)
    """Trials of a retune study."""
    max_step: float = Field(default=0.5, gt=0, lt=1)
    """Largest relative change a patch may make to a bound.

    Threats F25 asks for 10 %, against poison and runaway. Here other limits hold both: a value never leaves twice or half of params.yaml's,
    whatever the number of patches; patches expire; what few reporters say is not believed; and ten simulated years with 30 % of lying
    reporters leave no bound with steps of 50 % (tests/benchmarks/proof_feedback.py). A patch lives a week, in which daily steps of 10 %
    come to what drift asks for at once. Where nobody knows who reports, set 0.1.
    """
    cooldown_days: int = Field(default=1, ge=0)
    """A key that was patched is left alone for this many days."""
    expire_days: Count = 7
    max_per_source: Count = 100_000
    """Labels accepted per source and day."""
    min_reporters: Count = 1
    """Fewer independent sources of labels than this say nothing of quality; from 3 on, outliers among them are told apart."""
    keep_days: Count = 90
    """Answers that nobody said anything of are forgotten after this many days, and feedback on older ones is refused."""
    declines: int = Field(default=0, ge=0)
    """So many runs in a row, each judged worse than the one before, change model.heads of the next one; 0 never does, 3 is the preset."""
    rules: str | None = None
    """A YAML file of rules, relative to the checkout, instead of the built-in ones; null is those."""


class Settings(Section):
    """All of params.yaml."""

    seed: Seed = 7
    data: Data = Data()
    flow: Flow = Flow()
    validation: Validation = Validation()
    prepare: Prepare = Prepare()
    tokenize: Tokenize = Tokenize()
    model: Model = Model()
    plan: Plan = Plan()
    tune: Tune = Tune()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    gate: Gate = Gate()
    release: Release = Release()
    monitor: Monitor = Monitor()
    feedback: Feedback = Feedback()
    store: StoreSettings = StoreSettings()
    tracking: Tracking = Tracking()
    cluster: Cluster = Cluster()
    recovery: Recovery = Recovery()
    serving: Serving = Serving()
    notify: Notify = Notify()


PLACEMENT = frozenset({"store", "tracking", "cluster", "recovery", "serving", "notify"})
"""Sections that change where things are and never what a stage outputs: overridable at any time (design §5)."""
