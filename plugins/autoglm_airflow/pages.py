"""The pages that a task's buttons lead to, served by Airflow's own API server to whoever is logged in there."""

from __future__ import annotations

from typing import Annotated

from airflow.api_fastapi.core_api.security import get_user
from fastapi import Depends, FastAPI, HTTPException, Path
from fastapi.responses import FileResponse

from autoglm_airflow.command import home

# The page holds text out of the user's data, on the origin of Airflow's UI: it may show itself and do nothing.
_INERT = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"

app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, dependencies=[Depends(get_user)])


@app.get("/runs/{run}/report")
def report(run: Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]) -> FileResponse:
    """The run's report.html; 404 when the run has none, or its workspace was pruned."""
    page = home() / "runs" / run / "out" / "report" / "report.html"
    if not page.is_file():
        raise HTTPException(
            404, f"run {run} has no report: its `report` task has not ended well, or `autoglm runs prune` removed it"
        )
    return FileResponse(page, media_type="text/html", headers={"Content-Security-Policy": _INERT})
