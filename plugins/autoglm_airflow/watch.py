"""New raw data starts a build: a trigger that looks at `flow.location` and says so when its listing is another one."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

from airflow.sdk import Asset, AssetWatcher
from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from autoglm_airflow.command import checkout, home
from autoglm_ops.contracts.record import write_text

POLL_SECONDS = 30.0


class NewDataTrigger(BaseEventTrigger):
    """Fires when the files of `flow.location` (names, sizes, ETags) are not those it fired for last.

    What it fired for is kept in $AUTOGLM_HOME, so data that came while the triggerer was down is noticed. It is written after the event
    was taken: a crash between the two repeats an event, and a repeated build does nothing. Without a location it only waits.
    """

    def __init__(self, poll_seconds: float = POLL_SECONDS) -> None:
        super().__init__()
        self.poll_seconds = poll_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{type(self).__module__}.{type(self).__qualname__}", {"poll_seconds": self.poll_seconds}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        seen = home() / "airflow" / "raw-listing"
        while True:
            listing = await self._listing()
            if listing and listing != (seen.read_text(encoding="ascii") if seen.exists() else ""):
                yield TriggerEvent({"listing": listing})
                write_text(seen, listing)
            await asyncio.sleep(self.poll_seconds)

    async def _listing(self) -> str | None:
        """None when no location is set, or it cannot be listed now: that is logged, and asked again."""
        command = [os.environ.get("AUTOGLM_PYTHON") or sys.executable, "-m", "autoglm_ops", "data", "listing", "--json"]
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(*command, cwd=checkout(), stdout=pipe, stderr=pipe)
        out, err = await child.communicate()
        if child.returncode != 0:
            said = (err.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
            self.log.warning("flow.location cannot be listed (exit %s): %s", child.returncode, said)
            return None
        try:
            found = json.loads(out.splitlines()[-1])["listing"]
        except (ValueError, LookupError, TypeError):
            self.log.warning("flow.location cannot be listed: `autoglm data listing` answered %r", out[:200])
            return None
        return str(found) if found else None


RAW = Asset(
    name="autoglm_raw",
    uri="x-autoglm://raw",
    watchers=[AssetWatcher(name="autoglm_new_raw_data", trigger=NewDataTrigger())],
)
"""There is new text at `flow.location`: starts dataset_build."""
