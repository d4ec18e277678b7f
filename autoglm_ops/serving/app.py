"""The routes. Everything they need is handed in; nothing here knows of files, registries or settings."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autoglm_ops.contracts.serving import Clock, FeedbackCounts, Memory, Prediction
from autoglm_ops.errors import Tampered, TryAgain, UsageError
from autoglm_ops.serving.arms import Arm, Arms, Challenge, hidden
from autoglm_ops.serving.batcher import Answer, Batcher, Policy
from autoglm_ops.serving.faults import RequestError
from autoglm_ops.serving.guard import Guard
from autoglm_ops.serving.host import Loaded, ModelHost
from autoglm_ops.serving.keys import Keys
from autoglm_ops.serving.limits import Bounds, Limits
from autoglm_ops.serving.metrics import CONTENT_TYPE, Metrics
from autoglm_ops.serving.schema import ClassifyRequest, FeedbackRequest, event_time
from autoglm_ops.serving.strict import read

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """What a server is made of. The app closes `memory` and stops `host` when it ends; it does not start them."""

    host: ModelHost
    memory: Memory
    metrics: Metrics
    keys: Keys
    policy: Policy = field(default_factory=Policy)
    bounds: Bounds = field(default_factory=Bounds)
    clock: Clock = time.time
    challenge: Challenge | None = None


def build(parts: Parts) -> FastAPI:
    """The application: routes behind limits, behind the guard, behind the metrics."""
    batcher = Batcher(lambda: parts.host.current, parts.policy, parts.metrics)
    arms = Arms(Arm(parts.host, batcher), *_challenger(parts))

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        for arm in arms.all():
            arm.batcher.start()
        yield
        for arm in arms.all():
            await arm.batcher.stop()
            await asyncio.to_thread(arm.host.stop)
        await asyncio.to_thread(parts.memory.close)

    app = FastAPI(title="autoglm", lifespan=life, openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(Limits, bounds=parts.bounds)
    app.add_middleware(Guard, keys=parts.keys)
    app.add_middleware(Observe, metrics=parts.metrics)
    app.add_exception_handler(RequestError, _refused)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(Exception, _failed)

    @app.get("/healthz")
    async def health() -> Response:
        return JSONResponse({"status": "ok" if batcher.alive else "stopped"}, 200 if batcher.alive else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(parts.metrics.render(), media_type=CONTENT_TYPE)

    @app.get("/v1/models")
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [_describe(arm.host) for arm in arms.all()]})

    @app.post("/v1/classify")
    async def classify(request: Request) -> Response:
        asked = read(await request.body(), ClassifyRequest)
        return JSONResponse(await _observed(asked, parts, arms))

    @app.post("/v1/feedback")
    async def feedback(request: Request) -> Response:
        return await _feedback(read(await request.body(), FeedbackRequest), parts)

    return app


def _challenger(parts: Parts) -> tuple[Arm, float] | tuple[()]:
    """The second arm, with metrics of its own: it must not overwrite what is said of the champion."""
    if parts.challenge is None:
        return ()
    host = parts.challenge.host
    return Arm(host, Batcher(lambda: host.current, parts.policy, Metrics())), parts.challenge.share


async def _observed(asked: ClassifyRequest, parts: Parts, arms: Arms) -> dict[str, Any]:
    """`_classify`, counted for the day it asks about with the time it took. What is the client's own mistake is not counted."""
    day = event_time(asked.timestamp, parts.clock())[:10]
    request_id = f"clf-{uuid.uuid4().hex}"
    arm = arms.of(asked.user or request_id)
    version, started = arm.host.current.ref.version, time.perf_counter()
    try:
        answer = await _classify(asked, parts, arm, request_id)
    except BaseException as error:  # a deadline cancels us, for one
        if not isinstance(error, RequestError) or error.status >= 500:
            parts.memory.observe(day, version, len(asked.texts), time.perf_counter() - started, ok=False)
        raise
    parts.memory.observe(day, int(answer["version"]), len(asked.texts), time.perf_counter() - started, ok=True)
    return answer


async def _classify(asked: ClassifyRequest, parts: Parts, arm: Arm, request_id: str) -> dict[str, Any]:
    """Predict, remember, answer: in this order, so that no answer exists that is not remembered."""
    served = parts.host.current.ref.name
    if asked.model is not None and asked.model != served:
        raise RequestError(404, "model_not_found", f"this server serves {served!r}, not {asked.model!r}", param="model")
    now = parts.clock()
    happened = event_time(asked.timestamp, now)
    answer = await arm.batcher.classify(asked.texts)
    results = _results(asked.names(request_id), answer)
    ref = answer.loaded.ref
    # What was drawn for an arm: the user, or the request, whose texts then belong together; one text is known by its id.
    unit = hidden(asked.user) if asked.user else request_id if len(results) > 1 else ""
    kept = {"model": ref, "at": now, "event_time": happened, "unit": unit}
    predictions = [
        Prediction.model_validate({**kept, "id": row["id"], "text": text, "label": row["label"], "score": row["score"]})
        for row, text in zip(results, asked.texts, strict=True)
    ]
    try:
        await asyncio.wrap_future(parts.memory.remember(predictions))
    except UsageError as error:
        raise RequestError(409, "id_taken", str(error), param="ids") from error
    except (TryAgain, Tampered) as error:
        raise _forgetful(error) from error
    parts.metrics.predicted((row["label"] for row in results), ref.version)
    return {"request_id": request_id, "object": "classification", "model": ref.name, "version": ref.version, "results": results}


def _results(names: list[str], answer: Answer) -> list[dict[str, Any]]:
    labels = answer.loaded.classifier.labels
    rows = []
    for name, scores in zip(names, answer.scores, strict=True):
        shares = {label: round(float(score), 6) for label, score in zip(labels, scores, strict=True)}
        best = labels[int(scores.argmax())]
        rows.append({"id": name, "label": best, "score": shares[best], "scores": shares})
    return rows


async def _feedback(asked: FeedbackRequest, parts: Parts) -> Response:
    """200 when anything was kept; else the reason nothing was. Counts in both."""
    hosts = [parts.host, *([parts.challenge.host] if parts.challenge else [])]
    labels = frozenset(label for host in hosts for label in host.current.classifier.labels)
    items = asked.entries()
    try:
        counts = await asyncio.wrap_future(parts.memory.receive(items, parts.clock(), labels))
    except (TryAgain, Tampered) as error:
        raise _forgetful(error) from error
    parts.metrics.feedback(counts)
    told = {"object": "feedback", **counts.model_dump()}
    if counts.kept:
        return JSONResponse(told)
    fault = _nothing_kept(counts, items[0].id, sorted(labels))
    return JSONResponse({**told, **fault.body()}, fault.status, fault.headers())


UNTIMELY = {
    "future": "feedback must not be from the future; send the time it was said, or none",
    "late": "these answers are older than feedback.keep_days; nothing is learned from them any more",
    "outdated": "this source has said something later of these answers, which stands",
}


def _nothing_kept(counts: FeedbackCounts, first: str, labels: list[str]) -> RequestError:
    if counts.refused.get("unknown-label"):
        return RequestError(422, "unknown_label", f"none of the labels is one of {', '.join(labels)}", param="label")
    for word in ("future", "late", "outdated"):
        if counts.refused.get(word):
            return RequestError(422, word, UNTIMELY[word], param="timestamp")
    if counts.refused.get("over-cap"):
        return RequestError(429, "over_cap", "this source has given all the feedback it may today", retry_after=3600)
    return RequestError(
        404, "unknown_id", f"no answer is known by these ids, {first!r} the first; use an id /v1/classify gave", param="id"
    )


def _forgetful(error: TryAgain | Tampered) -> RequestError:
    log.error("requests cannot be remembered: %s", error)
    return RequestError(
        503, "storage_unavailable", "the server cannot keep requests now, and answers none it cannot keep", retry_after=5
    )


def _describe(host: ModelHost) -> dict[str, Any]:
    """One entry of OpenAI's model list, and what is served by its exact bytes."""
    loaded: Loaded = host.current
    ref, refusal = loaded.ref, host.refusal
    return {
        "id": ref.name,
        "object": "model",
        "created": int(loaded.at),
        "owned_by": "autoglm",
        "version": ref.version,
        "digest": ref.digest,
        "labels": list(loaded.classifier.labels),
        "refused": refusal and {"version": refusal.ref.version, "digest": refusal.ref.digest, "reason": refusal.reason},
    }


async def _refused(_: Request, error: Exception) -> Response:
    if not isinstance(error, RequestError):
        raise error
    return JSONResponse(error.body(), error.status, error.headers())


async def _no_route(request: Request, error: Exception) -> Response:
    """Starlette's own 404 and 405, in our shape."""
    if not isinstance(error, HTTPException):
        raise error
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    fault = RequestError(error.status_code, code, f"{request.method} {request.url.path[:200]}: {error.detail}")
    return JSONResponse(fault.body(), fault.status, dict(error.headers or {}))


async def _failed(_: Request, error: Exception) -> Response:
    """A bug. The client learns that it happened; the log has the rest (starlette raises it again)."""
    fault = RequestError(500, "internal_error", "the server failed on this request; its log says how")
    return JSONResponse(fault.body(), fault.status)


class Observe:
    """ASGI middleware: one count and one duration per request, by route template, so that strange paths make no new series."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = [499]  # nginx's word for a client that left

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
            await send(message)

        started = time.perf_counter()
        try:
            await self._app(scope, receive, watched)
        except BaseException:
            status[0] = 500
            raise
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in {"GET", "POST"} else "other"
            self._metrics.request(route, method, status[0], time.perf_counter() - started)
