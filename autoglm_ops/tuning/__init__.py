"""Which settings are best for this data: a typed search space, and a study that asks and tells in one process.

space = parse_space(settings.tune.space, TUNABLE)
report = study.run(study.Session(...), trainer, budget)          # from autoglm_ops.tuning.study, which imports optuna
"""

from autoglm_ops.contracts import space as tune
from autoglm_ops.tuning.space import TUNABLE, Dimension, Space, parse_space

__all__ = ["TUNABLE", "Dimension", "Space", "parse_space", "tune"]
