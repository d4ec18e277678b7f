"""Is training moving? For a pod's liveness probe: reads the ranks' beats, imports no torch, and is done in a tenth of a second.

    python -m autoglm_ops.training.alive /var/autoglm/scratch --seconds 120

Ends with 0 when every rank that is not done has moved within `--seconds`, with 1 when one has not or there is no beat; says which.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from autoglm_ops.training.beat import read


def judge(folder: Path, seconds: float, now: float) -> tuple[bool, str]:
    """(alive, why) at the monotonic time `now`. Of a rank that was started again only the newest attempt counts."""
    beats = read(folder)
    newest = max((beat.attempt for beat in beats), default=0)
    running = [beat for beat in beats if beat.attempt == newest and beat.phase != "done"]
    if not beats:
        return False, f"no beat below {folder}: no rank has started there"
    if not running:
        return True, "its one rank is done" if len(beats) == 1 else f"all {len(beats)} ranks are done"
    oldest = max(running, key=lambda beat: beat.age(now))
    said = f"rank {oldest.rank} ({oldest.phase}, step {oldest.step}) last moved {oldest.age(now):.1f} s ago"
    return oldest.age(now) <= seconds, f"{said}; the limit is {seconds:g} s"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m autoglm_ops.training.alive", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("folder", type=Path, help="the scratch folder, or any folder above the beats")
    parser.add_argument("--seconds", type=float, default=120.0, help="how old a beat may be")
    asked = parser.parse_args()
    alive, why = judge(asked.folder, asked.seconds, time.monotonic())
    sys.stdout.write(why + "\n")
    return 0 if alive else 1


if __name__ == "__main__":
    sys.exit(main())
