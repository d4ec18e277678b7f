"""Read by Python when it starts: this process's pods get the host's mounts (see `mounting`)."""

import mounting

from autoglm_ops.cluster import kubernetes

kubernetes.pods = mounting.pods
