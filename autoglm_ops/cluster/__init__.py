"""Where a job runs: one launcher a file, all behind `contracts.cluster.Launcher`."""
