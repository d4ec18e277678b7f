"""Settings: params.yaml, laid over by --config files, environment variables and --set, all typed and checked before work.

settings = load(Path("params.yaml"), overrides=["train.learning_rate=3e-4"])
"""

from autoglm_ops.settings.layers import load, load_tree, resolve
from autoglm_ops.settings.schema import PLACEMENT, Settings

__all__ = ["PLACEMENT", "Settings", "load", "load_tree", "resolve"]
