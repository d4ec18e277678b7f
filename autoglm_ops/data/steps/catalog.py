"""The steps by name. A section of the settings becomes a step with `STEPS.get(name)(**section)`; nothing is imported before that."""

from __future__ import annotations

from autoglm_ops.catalog import Catalog

STEPS = Catalog(
    "data step",
    {
        "normalise": "autoglm_ops.data.steps.normalise:Normalise",
        "pii": "autoglm_ops.data.steps.pii:Pii",
        "language": "autoglm_ops.data.steps.language:Language",
        "gopher-quality": "autoglm_ops.data.steps.gopher_quality:GopherQuality",
        "gopher-repetition": "autoglm_ops.data.steps.gopher_repetition:GopherRepetition",
        "c4": "autoglm_ops.data.steps.c4:C4",
        "cjk-quality": "autoglm_ops.data.steps.cjk_quality:CjkQuality",
        "cjk-repetition": "autoglm_ops.data.steps.gopher_repetition:cjk_repetition",
        "contamination": "autoglm_ops.data.steps.contamination:Contamination",
        "source-cap": "autoglm_ops.data.steps.source_cap:SourceCap",
        "mix": "autoglm_ops.data.steps.mixing:Mix",
    },
    group="autoglm_ops.data_steps",
)
