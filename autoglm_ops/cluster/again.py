"""`python -m autoglm_ops.cluster.again SECONDS COMMAND…`: runs a server again, SECONDS after it ended with an error.

The model server cannot start before there is a champion, and this is what waits for one.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from autoglm_ops import logs
from autoglm_ops.cluster.process import ChildProcess

log = logging.getLogger(__name__)


def main(arguments: list[str]) -> int:
    """Run until the command ends well or a signal ends us. Says once, not every few seconds, why it is waiting."""
    pause, command = float(arguments[0]), arguments[1:]
    signal.signal(signal.SIGTERM, _interrupt)
    said = ""
    while True:
        lines: list[bytes] = []

        def sink(stream: str, line: bytes, kept: list[bytes] = lines) -> None:
            kept[:] = [*kept[-4:], line]
            if len(kept) < 5:
                return
            sys.stderr.buffer.write(kept.pop(0))
            sys.stderr.flush()

        code = ChildProcess(command, cwd=Path.cwd(), environment=os.environ, sink=sink).wait()
        if code == 0:
            return 0
        last = b"".join(lines).decode("utf-8", errors="replace")
        if last != said:
            log.warning("it ended with exit %s and is started again every %g s:\n%s", code, pause, last)
        said = last
        time.sleep(pause)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    logs.configure(plain=True)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(0)
