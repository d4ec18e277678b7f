"""A source log, pulled in order into a folder of documents: kill it anywhere, nothing is lost and nothing is doubled.

log = open_log("redis://host:6379/reviews")       # or a folder of JSON Lines, or s3://bucket/prefix
routes = LiveRoutes(Path("handlers.yaml"), parse)  # which handler takes which type of event; reread while it runs
with Commits(Path("followed"), log.name) as commits:
    tally = follow(log, commits, routes, Bounds(), stop)

One event is one JSON object `{"type": …, "body": {…}}`. `files` and `stream` are the logs, `handlers` what makes documents of a body,
`convert` the decision what becomes of an event, `commits` the folder: a batch becomes visible with its offset in one rename, so there
is no moment at which one is there without the other. `pull` is the loop. What no handler takes lies beside the documents, whole.
"""

from autoglm_ops.data.follow.commits import Commits
from autoglm_ops.data.follow.events import open_log
from autoglm_ops.data.follow.pull import Bounds, Tally, follow
from autoglm_ops.data.follow.routes import LiveRoutes

__all__ = ["Bounds", "Commits", "LiveRoutes", "Tally", "follow", "open_log"]
