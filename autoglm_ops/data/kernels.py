"""Where compiled loops are kept between processes: by the source of this package, not by its place.

A run executes the code of its own clone (design §4), so machine code kept beside the module, as numba does, was made anew in every run:
8 s of a core for each ingest that reads returned labels. Who starts a stage names this class in NUMBA_CACHE_LOCATOR_CLASSES.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path

from numba.core.caching import UserProvidedCacheLocator

PACKAGE = Path(__file__).parent


class BySource(UserProvidedCacheLocator):
    """A folder of NUMBA_CACHE_DIR for each state of this package's sources.

    numba looks at the file of a function alone; a loop that another file's loop was compiled into must not outlive a change of it.
    """

    @classmethod
    def get_suitable_cache_subpath(cls, py_file: str) -> str:
        return f"{_sources()}/{Path(py_file).parent.name}"


@cache
def _sources() -> str:
    found = sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        found.update(f"{path.relative_to(PACKAGE)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return found.hexdigest()[:16]
