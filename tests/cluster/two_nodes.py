"""A second Slurm beside the one that $SLURM_CONF leads to: two slurmd of two names on this machine, the first one's munge."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONF = """\
ClusterName=two
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
{auth}
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=2000
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=8000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=8000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def cannot() -> str | None:
    """Why there can be no second Slurm here, or None."""
    if os.getuid() != 0 or not (shutil.which("slurmd") and shutil.which("slurmctld")):
        return (
            "not root, or no slurmd here: two nodes cannot be had; what they would be asked for is held by tests/unit/cluster"
        )
    return None


@contextmanager
def two_nodes(folder: Path) -> Iterator[Path]:
    """Yields its slurm.conf. Its daemons end with the block, by their own pids."""
    given = Path(os.environ["SLURM_CONF"]).read_text()
    auth = next(iter(re.findall(r"^AuthInfo=.*$", given, re.MULTILINE)), "")
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=socket.gethostname().partition(".")[0], ports=free_ports(3), auth=auth, folder=folder))
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
    for name in ("state", "spool-n1", "spool-n2"):
        (folder / name).mkdir()
    try:
        start_controller(conf)
        for name in ("n1", "n2"):
            subprocess.run(["slurmd", "-f", conf, "-N", name], check=True)
        wait_for_nodes(conf)
        yield conf
    finally:
        for path in folder.glob("*.pid"):
            stop(path)


def start_controller(conf: Path) -> None:
    subprocess.run(["slurmctld", "-f", conf], check=True)


def stop(pid_file: Path) -> None:
    """End the daemon that wrote this file, and wait for it."""
    pid = int(pid_file.read_text())
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.1)


def wait_for_nodes(conf: Path) -> None:
    end = time.monotonic() + 60
    while True:
        done = subprocess.run(
            ["sinfo", "--noheader", "--format=%t %D"],
            env={**os.environ, "SLURM_CONF": str(conf)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.stdout.split() == ["idle", "2"]:
            return
        assert time.monotonic() < end, done.stdout + done.stderr
        time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    for item in held:
        item.bind(("127.0.0.1", 0))
    ports = [item.getsockname()[1] for item in held]
    for item in held:
        item.close()
    return ports
