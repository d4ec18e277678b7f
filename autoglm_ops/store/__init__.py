"""Artefacts by digest: what is put is immutable, what is got was checked.

store = open_store(None, home)        # a folder under $AUTOGLM_HOME; s3://bucket/prefix for S3
digest = store.put(model_folder)
store.get(digest, target)
"""

from autoglm_ops.store.opening import open_store

__all__ = ["open_store"]
