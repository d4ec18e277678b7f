"""Where on a Slurm cluster jobs go."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from autoglm_ops.contracts.record import Record

Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


class SlurmPlace(Record):
    """The section `cluster.slurm` of the settings. Null leaves it to the cluster's default.

    logs: a folder that this machine and the nodes see; jobs write their output there. python: the interpreter on the nodes, with
    autoglm_ops installed; null is this process's own path, or `python` in an image. prefix: words before the command, {image} replaced
    by cluster.image, such as [apptainer, exec, --nv, "{image}"].
    """

    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    logs: str = "~/autoglm-logs"
    python: str | None = None
    prefix: tuple[str, ...] = ()
