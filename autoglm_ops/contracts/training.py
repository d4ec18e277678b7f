"""Records of planning, tuning and training."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from autoglm_ops.contracts.record import Record


class HardwareSpec(Record):
    """`inputs/hardware.json`. Memory in GiB, rounded, so that two snapshots of one machine agree. All but `nodes` is per node.

    Rates are what the maker states, 0 where nobody said: TFLOPs dense, in 16 and in 32 bits; GB/s in one direction, of a GPU to its
    neighbours (NVLink or PCIe), of a GPU to the host's memory, and of a node to the other nodes.
    """

    cpus: int = Field(ge=1)
    memory_gib: int = Field(ge=1)
    gpus: int = Field(default=0, ge=0)
    gpu_memory_gib: int = Field(default=0, ge=0)
    gpu_name: str = ""
    nodes: int = Field(default=1, ge=1)
    gpu_tflops: float = Field(default=0.0, ge=0)
    gpu_tflops_fp32: float = Field(default=0.0, ge=0)
    link_gbs: float = Field(default=0.0, ge=0)
    host_gbs: float = Field(default=0.0, ge=0)
    network_gbs: float = Field(default=0.0, ge=0)


class ModelShape(Record):
    """What planning needs to know of a model. `parameters` is exact where `family` is named, an upper estimate elsewhere.

    0 means not said. `kv_width` is key-value heads × head size, `query_width` heads × head size; `active_parameters` are those one
    token passes (all but the experts not chosen); `vectors` are the weights in norms and biases; `largest_module` the most weights
    that one module owns; `outputs` the columns the head gives per scored position, and `scored` the positions scored per row.
    `norm_width` is the sum of what a layer's norms normalise, `scores` whether dropout inside attention makes it keep its scores.
    `reads_last`: of its only layer, all but keys and values is computed for the last token of a row alone (training/readout.py).
    An expert layer is `expert_layers` of `layers`, and a token passes `expert_width` of its inner width. `mean_length` is a row's usual
    length where rows are not all `max_length` long: time hangs on it, memory on the longest.
    """

    parameters: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
    intermediate_size: int = Field(ge=1)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    max_length: int = Field(ge=1)
    family: str = ""
    query_width: int = Field(default=0, ge=0)
    kv_width: int = Field(default=0, ge=0)
    vocabulary: int = Field(default=0, ge=0)
    outputs: int = Field(default=0, ge=0)
    scored: int = Field(default=1, ge=1)
    reads_last: bool = False
    tied: bool = False
    gated: bool = True
    active_parameters: int = Field(default=0, ge=0)
    vectors: int = Field(default=0, ge=0)
    norm_width: int = Field(default=0, ge=0)
    scores: bool = False
    largest_module: int = Field(default=0, ge=0)
    experts: int = Field(default=0, ge=0)
    expert_layers: int = Field(default=0, ge=0)
    expert_width: int = Field(default=0, ge=0)
    mean_length: int = Field(default=0, ge=0)


class _Degrees(Protocol):
    @property
    def ranks(self) -> int: ...
    @property
    def tensor(self) -> int: ...
    @property
    def pipeline(self) -> int: ...


class Cut:
    """What follows from how many ranks there are, and how many of them compute one copy of the model."""

    @property
    def copies(self: _Degrees) -> int:
        """Copies of the model, whole on a rank or spread over several; each reads rows of its own."""
        return self.ranks // (self.tensor * self.pipeline)

    @property
    def split(self: _Degrees) -> bool:
        """Whether a copy of the model is computed by several ranks."""
        return self.tensor * self.pipeline > 1


class ParallelPlan(Cut, Record):
    """How a training run is laid out. Global batch = copies × micro_batch × accumulation, exactly."""

    ranks: int = Field(ge=1)
    micro_batch: int = Field(ge=1)
    accumulation: int = Field(ge=1)
    zero_stage: Literal[0, 1, 2, 3]
    precision: Literal["fp32", "bf16", "fp16"]
    device: Literal["cpu", "cuda"]
    threads_per_rank: int = Field(ge=1)
    memory_bytes: dict[str, int]
    fits: bool
    reasons: tuple[str, ...]
    checkpointing: bool = False
    """Whether a layer's activations are computed again in the backward pass instead of kept."""
    offload: Literal["none", "optimizer", "parameters"] = "none"
    """What is kept in the host's memory; `parameters` means the optimizer too."""
    step_seconds: float = 0.0
    """Estimate of one optimizer step, 0 where none was made."""
    buckets: dict[str, int] = {}
    """DeepSpeed's buffer sizes, in elements, that the memory estimate counts on; empty leaves its own."""
    tensor: int = Field(default=1, ge=1)
    """Ranks that share every layer of one copy of the model; left out of the file when 1, as `pipeline` is."""
    pipeline: int = Field(default=1, ge=1)
    """Ranks that hold one copy's layers one after the other."""

    @property
    def global_batch(self) -> int:
        return self.copies * self.micro_batch * self.accumulation

    @model_serializer(mode="wrap")
    def _without_whole_models(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        told: dict[str, Any] = dump(self)
        return {key: value for key, value in told.items() if key not in ("tensor", "pipeline") or value > 1}


class PlanSurvey(Record):
    """`$AUTOGLM_HOME/plans/<model>.json`: every kind of plan for one model on one machine. `plans` fit, fastest first."""

    model: str
    task: str
    batch_size: int
    shape: ModelShape
    hardware: HardwareSpec
    plans: tuple[ParallelPlan, ...]
    why_not: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return bool(self.plans)


class Trial(Record):
    """One configuration tried: settings keys to values, the objective after each report step."""

    number: int
    params: dict[str, Any]
    state: Literal["complete", "pruned", "failed"]
    value: float | None
    curve: tuple[tuple[int, float], ...] = ()
    costs: dict[str, float] = {}
    """What else counts, where it does: counted, not timed. Left out of the file when there is none."""

    @model_serializer(mode="wrap")
    def _without_no_costs(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(dump(self), "costs")


class TuningReport(Record):
    """`out/tune/report.json`. `best` are settings keys that `train` lays over params.yaml.

    With several `objectives`, `front` are the trials that no other one beats in all of them, and `best` is the knee of these.
    """

    verdict: Literal["tuned", "off"]
    objective: str
    direction: Literal["maximize", "minimize"]
    space: dict[str, Any]
    trials: tuple[Trial, ...] = ()
    best: dict[str, Any] = {}
    best_value: float | None = None
    reasons: tuple[str, ...] = ()
    objectives: tuple[str, ...] = ()
    front: tuple[int, ...] = ()

    @model_serializer(mode="wrap")
    def _without_no_front(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(dump(self), "objectives", "front")


def _without(told: dict[str, Any], *names: str) -> dict[str, Any]:
    """A record's content without those of these that are empty: it has the bytes it had before they were thought of."""
    return {key: value for key, value in told.items() if value or key not in names}


class RecoveryRules(Record):
    """How a training group is kept going. None of it changes what an undisturbed run gives."""

    restarts: int = Field(default=3, ge=0)
    """Restarts in a row that bring no newer checkpoint; a newer one refills them."""
    hang_seconds: float | None = Field(default=None, gt=0)
    """Without a beat for this long a rank hangs; None follows the longest pause measured so far."""
    backoff_seconds: float = Field(default=1.0, ge=0)
    """The second restart in a row waits this long, each one after it twice as long and that again; the first waits for nothing."""
    checkpoint_steps: int | None = Field(default=100, ge=1)
    """A checkpoint after so many steps, beside those after evaluations; None leaves it at those."""
    checkpoint_seconds: float | None = Field(default=5.0, gt=0)
    """And about so many seconds after the last one (later where writing takes long), which bounds what a kill costs; None for steps alone."""


Cause = Literal["killed", "out-of-memory", "diverged", "disk-full", "lost-peer", "hang", "never-joined", "refused", "unknown"]


class TrainingFailure(Record):
    """One attempt that ended badly. `step` is the last one known of, `kept` the newest checkpoint's, `resumed` where the attempt began."""

    attempt: int
    cause: Cause
    rank: int
    step: int
    kept: int
    resumed: int
    message: str


class RecoveryDecision(Record):
    """What is done about the newest failure, and why."""

    action: Literal["resume", "halve-micro-batch", "roll-back", "quarantine", "give-up"]
    reason: str
    wait_seconds: float = 0.0
    set_aside: int = 0
    """The step of a checkpoint not to continue from again; 0 for none."""


class TrainingChange(Record):
    """What a recovery changed of a run: from `step` on its weights are no longer those of the undisturbed run, bit for bit."""

    number: int
    kind: Literal["micro-batch", "rate", "layout"]
    why: str
    step: int = 0
    micro_batch: int = 0
    """Rows of a micro-batch from here on; 0 where they did not change."""


class PastStudy(Record):
    """What later studies may learn from: the space, `steps` of a whole training, and the trials that were scored.

    data: digest of the dataset. objective: what `curve` scores say.
    """

    name: str
    objective: str
    steps: int
    space: dict[str, Any]
    data: str
    trials: tuple[Trial, ...]


class StudyHistory(Record):
    """`inputs/history.json`: earlier studies, oldest first."""

    studies: tuple[PastStudy, ...] = ()


class Quantised(Record):
    """What int8 made of a model: macro-F1 of the validation rows and bytes of the weights, before and after.

    layers: how many became int8. kept: numbers that are float32, the scales among them.
    """

    scheme: str
    layers: int
    kept: int
    rows: int
    before: float
    after: float
    bytes_before: int
    bytes_after: int


class TrainingRecord(Record):
    """`out/train/training.json`. Only what the same parameters, data and ranks always give."""

    architecture: str
    parameters: int
    plan_digest: str
    settings: dict[str, Any]
    steps: int
    epochs: float
    samples: int
    tokens: int
    losses: tuple[tuple[int, float], ...]
    validation: tuple[tuple[int, float], ...]
    best_step: int
    """Of the published weights: the best evaluation's, or the last one's where weights were averaged."""
    averaged_from: int = 0
    """The published weights are the mean of those from this step to the last, which the last entry of `validation` is about. 0 where none
    were averaged, and left out of the file then."""
    weights_sha256: str
    changes: tuple[TrainingChange, ...] = ()
    """What recoveries changed on the way; left out of the file when nothing was."""
    quantised: Quantised | None = None
    """How the published weights became int8; left out of the file where they are float32. `validation` is of the weights before."""

    @model_serializer(mode="wrap")
    def _without_what_is_not(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(dump(self), "changes", "averaged_from", "quantised")


class CheckpointManifest(Record):
    """`manifest.json` in a model folder: every other file by sha256. A file that is not listed is as wrong as one that differs."""

    files: dict[str, str]
    architecture: str
    labels: tuple[str, ...]
    max_length: int
