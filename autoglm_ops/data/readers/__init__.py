"""The data engine's readers: a location -> its files -> shards -> frames of documents and rejects.

limits = Limits()
place = survey("s3://bucket/raw", limits)          # what is there, and what was left alone
for shard in plan(place.blobs, 256 << 20):         # pure; byte ranges of big plain files
    for item in read(shard, "s3://bucket/raw", shape, limits):
        ...                                        # a polars frame of DOCUMENT, or a Rejected

Locations (`places`): `folder`, `bucket`, `web`. Packings: `unpack`. Formats (`names`): `jsonl` (by `scan`), `csvfile`, `parquet`,
`text`. What identifies a document that brings no id is said in `blocks`.
"""

from autoglm_ops.data.readers.limits import Limits, Rejected
from autoglm_ops.data.readers.places import Place, survey
from autoglm_ops.data.readers.reading import read
from autoglm_ops.data.readers.shards import Blob, Part, Shard, plan

__all__ = ["Blob", "Limits", "Part", "Place", "Rejected", "Shard", "plan", "read", "survey"]
