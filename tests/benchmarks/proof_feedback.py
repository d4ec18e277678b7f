"""Ten years of nights with 0, 10, 20 and 30 % of hostile reporters: no lever leaves its bounds, none oscillates, and below 20 % no decision
differs from an honest world's.

    python tests/benchmarks/proof_feedback.py --nights 3650
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "unit" / "feedback"))

from feedback_nights import play  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=3650)
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args()
    started, honest = time.monotonic(), play(asked.nights, 0.0, asked.seed)
    table = Table("hostile", "nights", "patches", "bounds left", "turned round", "nights judged otherwise", "refused", box=None)
    failed, rows = False, []
    for hostile in (0.0, 0.1, 0.2, 0.3):
        told = honest if hostile == 0 else play(asked.nights, hostile, asked.seed)
        other = sum(one != two for one, two in zip(told.fired, honest.fired, strict=True))
        other += sum(one not in honest.moves for one in told.moves) if hostile <= 0.2 else 0
        row = (
            f"{hostile:.0%}",
            len(told.fired),
            len(told.moves),
            len(told.left),
            len(told.turned),
            other,
            told.refused.total(),
        )
        table.add_row(*map(str, row))
        rows.append(row)
        failed |= bool(told.left or told.turned or (other and hostile <= 0.2))
    Console().print(table, f"{time.monotonic() - started:.0f} s")
    out = ROOT / ".autoglm" / "bench" / "feedback.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"nights": asked.nights, "seed": asked.seed, "rows": rows}, indent=1) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
