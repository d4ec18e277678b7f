"""What the tests of a real Slurm share. They take SLURM_CONF from the environment and say so when they skip."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

there = bool(os.environ.get("SLURM_CONF")) and shutil.which("sbatch") is not None
needs_slurm = pytest.mark.skipif(not there, reason="no Slurm: set SLURM_CONF (and have sbatch) to test the Slurm launcher")


def command(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def hurry(number: str) -> bool:
    """Slurm holds a requeued job back for two minutes, until old credentials are void; the test need not wait for all of that.

    Some seconds it must: slurmd refuses a credential of the second in which it revoked the job's last one (cred_context.c,
    `cred->ctime <= j->revoked`), and srun ends with 1 then.
    """
    if "JobState=PENDING" not in command("scontrol", "show", "job", number):
        return False
    command("scontrol", "update", f"JobId={number}", "StartTime=now+5seconds")
    return True
