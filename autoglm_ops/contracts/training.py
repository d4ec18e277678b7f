"""Records of planning, tuning and training."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from autoglm_ops.contracts.record import Record


class HardwareSpec(Record):
    """`inputs/hardware.json`. Memory in GiB, rounded, so that two snapshots of one machine agree."""

    cpus: int = Field(ge=1)
    memory_gib: int = Field(ge=1)
    gpus: int = Field(default=0, ge=0)
    gpu_memory_gib: int = Field(default=0, ge=0)
    gpu_name: str = ""


class ModelShape(Record):
    """What planning needs to know of a model. `parameters` is exact for built-in models, an upper estimate for others."""

    parameters: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
    intermediate_size: int = Field(ge=1)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    max_length: int = Field(ge=1)


class ParallelPlan(Record):
    """How a training run is laid out. Global batch = ranks × micro_batch × accumulation, exactly."""

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

    @property
    def global_batch(self) -> int:
        return self.ranks * self.micro_batch * self.accumulation


class Trial(Record):
    """One configuration tried: settings keys to values, the objective after each report step."""

    number: int
    params: dict[str, Any]
    state: Literal["complete", "pruned", "failed"]
    value: float | None
    curve: tuple[tuple[int, float], ...] = ()


class TuningReport(Record):
    """`out/tune/report.json`. `best` are settings keys that `train` lays over params.yaml."""

    verdict: Literal["tuned", "off"]
    objective: str
    direction: Literal["maximize", "minimize"]
    space: dict[str, Any]
    trials: tuple[Trial, ...] = ()
    best: dict[str, Any] = {}
    best_value: float | None = None
    reasons: tuple[str, ...] = ()


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
    weights_sha256: str


class CheckpointManifest(Record):
    """`manifest.json` in a model folder: every other file by sha256. A file that is not listed is as wrong as one that differs."""

    files: dict[str, str]
    architecture: str
    labels: tuple[str, ...]
    max_length: int
