"""AutoGLM Ops: daily retraining of GLM-family and Hugging Face models, with a loop from production back to tuning.

Importing this package is free: every heavy library has one owner module that is imported where it is needed
(design: README, "How the code is laid out").
"""

__version__ = "0.1.0"
