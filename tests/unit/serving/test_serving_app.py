"""The routes, through a real server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from serving_parts import KEY, ByLength, Shelf, running, serving

from autoglm_ops.feedback.intake import Intake
from autoglm_ops.serving import app
from autoglm_ops.serving.app import Parts
from autoglm_ops.serving.batcher import Policy
from autoglm_ops.serving.limits import Bounds

BAD_KEYS = [
    {},
    {"authorization": ""},
    {"authorization": "Bearer"},
    {"authorization": "Bearer wrong-key-wrong-key"},
    {"authorization": KEY},
    {"authorization": f"Basic {KEY}"},
    {"authorization": f"Bearer {KEY}x"},
    {"authorization": "Bearer ключ-ключ-ключ".encode()},
    {"authorization": b"Bearer \xff\xfe"},
    {"x-api-key": KEY},
]


def test_no_route_is_reached_without_a_key(parts: Parts) -> None:
    """Threat F30: whatever routes there are, now or later."""
    routes = {getattr(route, "path", "/") for route in app.build(parts).routes} | {
        "/docs",
        "/openapi.json",
        "/nowhere",
        "//healthz",
        "/healthz/",
    }
    assert {"/v1/classify", "/v1/feedback", "/v1/models", "/metrics", "/healthz"} <= routes
    with running(parts) as url, httpx.Client(base_url=url) as http:
        for path in sorted(routes - {"/healthz"}):
            for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "PROPFIND"):
                for headers in BAD_KEYS:
                    assert http.request(method, path, headers=headers).status_code == 401, (method, path, headers)
            twice = [("authorization", f"Bearer {KEY}"), ("authorization", f"Bearer {KEY}")]
            assert http.get(path, headers=twice).status_code == 401
        body = http.get("/v1/models").json()
        assert body["error"]["type"] == "authentication_error" and body["error"]["code"] == "invalid_api_key"
        assert http.get("/healthz").json() == {"status": "ok"}
        assert http.post("/healthz").status_code == 405
        assert http.get("/v1/models", headers={"authorization": f"bearer {KEY}"}).status_code == 200


def test_a_text_and_a_list_are_answered_and_remembered(client: httpx.Client, parts: Parts) -> None:
    one = client.post("/v1/classify", json={"input": "ab", "timestamp": "2026-01-05"}).json()
    assert (one["model"], one["version"], len(one["results"])) == ("autoglm", 1, 1)
    result = one["results"][0]
    assert result["id"] == one["request_id"] and result["label"] == "pos"
    assert result["score"] == max(result["scores"].values()) and set(result["scores"]) == {"neg", "pos"}
    many = client.post(
        "/v1/classify", json={"input": ["a", "bb"], "ids": ["r/1", "r/2"], "timestamp": "2026-01-06T23:30:00-02:00"}
    )
    assert [(row["id"], row["label"]) for row in many.json()["results"]] == [("r/1", "neg"), ("r/2", "pos")]
    unnamed = client.post("/v1/classify", json={"input": ["a", "bb"]}).json()
    assert [row["id"] for row in unnamed["results"]] == [f"{unnamed['request_id']}.0", f"{unnamed['request_id']}.1"]
    assert isinstance(parts.memory, Intake)
    kept = {prediction.id: prediction for prediction in parts.memory.predictions()}
    assert len(kept) == 5
    assert (kept[result["id"]].text, kept[result["id"]].day, kept["r/1"].event_time) == (
        "ab",
        "2026-01-05",
        "2026-01-07T01:30:00Z",
    )
    assert kept["r/1"].model == parts.host.current.ref


def test_two_hundred_at_once_are_each_answered_rightly(tmp_path: Path) -> None:
    slow = ByLength(seconds=0.02)
    texts = ["x" * (1 + n % 37) for n in range(200)]
    with serving(tmp_path, Shelf(v1=slow)) as (http, _), ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda text: http.post("/v1/classify", json={"input": text}), texts))
    assert [answer.status_code for answer in answers] == [200] * 200
    assert [answer.json()["results"][0]["label"] for answer in answers] == ["neg" if len(text) % 2 else "pos" for text in texts]
    assert sum(slow.batches) == 200 and max(slow.batches) > 8, "requests that wait together are answered together"


def test_models_are_listed_as_openai_lists_them(client: httpx.Client) -> None:
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    assert {
        "id": "autoglm",
        "object": "model",
        "owned_by": "autoglm",
        "version": 1,
        "digest": "1" * 64,
        "refused": None,
    }.items() <= listed["data"][0].items()


def test_metrics_tell_what_happened(client: httpx.Client) -> None:
    answer = client.post("/v1/classify", json={"input": ["aa", "b"], "ids": ["m1", "m2"]})
    client.post(
        "/v1/feedback",
        json={"items": [{"id": "m1", "label": "pos"}, {"id": "m2", "label": "pos"}, {"id": "no", "label": "pos"}]},
    )
    client.get("/nowhere/12345")
    assert answer.status_code == 200
    text = client.get("/metrics").text
    for line in (
        'autoglm_requests_total{method="POST",route="/v1/classify",status="200"} 1.0',
        'autoglm_requests_total{method="GET",route="none",status="404"} 1.0',
        'autoglm_predictions_total{label="pos",version="1"} 1.0',
        'autoglm_feedback_total{outcome="unknown"} 1.0',
        'autoglm_labels_total{agrees="yes"} 1.0',
        'autoglm_labels_total{agrees="no"} 1.0',
        f'autoglm_model_info{{digest="{"1" * 64}",name="autoglm",version="1"}} 1.0',
        "autoglm_registry_up 1.0",
        "autoglm_batch_texts_count 1.0",
    ):
        assert line in text
    assert "12345" not in text


def test_feedback_finds_its_answer_once(client: httpx.Client) -> None:
    key = client.post("/v1/classify", json={"input": "ab"}).json()["request_id"]
    first = client.post("/v1/feedback", json={"request_id": key, "correction": "neg", "source": "editor"})
    assert first.status_code == 200 and (first.json()["accepted"], first.json()["disagreed"]) == (1, 1)
    assert client.post("/v1/feedback", json={"id": key, "label": "neg", "source": "editor"}).json()["repeated"] == 1
    assert client.post("/v1/feedback", json={"id": key, "rating": -1}).json()["accepted"] == 1
    batch = {
        "source": "editor",
        "items": [{"id": key, "label": "pos"}, {"id": key, "label": "pos", "source": "b"}, {"id": "?x", "label": "pos"}],
    }
    assert client.post("/v1/feedback", json=batch).status_code == 422
    batch["items"][2]["id"] = "gone"
    counts = client.post("/v1/feedback", json=batch).json()
    assert (counts["replaced"], counts["accepted"], counts["unknown"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"id": "nobody", "label": "pos"}, 404, "unknown_id"),
        ({"items": [{"id": "nobody", "label": "pos"}] * 3}, 404, "unknown_id"),
        ({"id": "nobody", "label": "bogus"}, 422, "unknown_label"),
        ({"id": "nobody"}, 422, "invalid_value"),
        ({"label": "pos"}, 422, "invalid_value"),
        ({"id": "a", "request_id": "a", "label": "pos"}, 422, "invalid_value"),
        ({"id": "a", "label": "pos", "correction": "neg"}, 422, "invalid_value"),
        ({"id": "a", "label": "pos", "rating": 1}, 422, "invalid_value"),
        ({"id": "a", "rating": 1.5}, 422, "invalid_value"),
        ({"id": "a", "label": "pos", "source": "no blanks"}, 422, "invalid_value"),
        ({"items": [], "source": "x"}, 422, "invalid_value"),
        ({"items": [{"id": "a", "label": "pos"}], "label": "pos"}, 422, "invalid_value"),
        ({"items": [{"id": "a", "label": "pos"}] * 1001}, 422, "invalid_value"),
    ],
)
def test_bad_feedback_is_told_what_is_wrong(client: httpx.Client, body: object, status: int, code: str) -> None:
    answer = client.post("/v1/feedback", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": " \n"}, "input"),
        ({"input": "a\0b"}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a"] * 257}, "input"),
        ({"input": "a" * 20_001}, "input"),
        ({"input": [1]}, "input"),
        ({"input": {"text": "a"}}, "input"),
        ({"text": "a"}, None),
        ({"input": "a", "inputs": "b"}, "inputs"),
        ({"input": ["a", "b"], "ids": ["1"]}, None),
        ({"input": ["a", "b"], "ids": ["1", "1"]}, None),
        ({"input": "a", "ids": ["../x"]}, "ids"),
        ({"input": "a", "timestamp": "yesterday"}, "timestamp"),
        ({"input": "a", "timestamp": "2026-02-30"}, "timestamp"),
        ({"input": "a", "timestamp": "9999-12-31"}, "timestamp"),
        ({"input": "a", "timestamp": "0001-01-01T00:00:00+14:00"}, "timestamp"),
        ({"input": "a", "timestamp": "1969-12-31"}, "timestamp"),
        ({"input": "a", "timestamp": 5}, "timestamp"),
        ([1], None),
        ("a", None),
        ([None], None),
    ],
)
def test_a_bad_question_is_told_what_is_wrong(client: httpx.Client, parts: Parts, body: object, param: str | None) -> None:
    answer = client.post("/v1/classify", json=body)
    error = answer.json()["error"]
    assert answer.status_code == 422 and error["type"] == "invalid_request_error"
    assert param is None or error["param"].split(".")[0] == param
    assert isinstance(parts.memory, Intake) and parts.memory.predictions() == []


def test_other_refusals_have_their_own_words(client: httpx.Client) -> None:
    assert client.post("/v1/classify", json={"input": "a", "model": "gpt"}).json()["error"]["code"] == "model_not_found"
    assert client.get("/v1/classify").json()["error"]["code"] == "method_not_allowed"
    assert client.get("/v2").json()["error"]["code"] == "not_found"
    client.post("/v1/classify", json={"input": "first", "ids": ["taken"]})
    again = client.post("/v1/classify", json={"input": "second", "ids": ["taken"]})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "id_taken")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["input", "ids", "id", "label", "items", "rating"]) | st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)
BODIES = (
    st.binary(max_size=80)
    | st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | JSON.map(lambda v: json.dumps(v).encode())
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(["/v1/classify", "/v1/feedback", "/v1/models", "/metrics", "/healthz"]), body=BODIES)
def test_no_body_makes_the_server_fail(client: httpx.Client, path: str, body: bytes) -> None:
    """Threat F34: never 5xx, and every refusal is typed."""
    answer = client.post(path, content=body)
    assert answer.status_code < 500
    if answer.status_code >= 400:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_full_queue_is_told_at_once_when_to_come_back(tmp_path: Path) -> None:
    policy = Policy(max_batch=4, wait_seconds=0, queue=8)
    with serving(tmp_path, Shelf(v1=ByLength(seconds=0.5)), policy=policy) as (http, _), ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda n: http.post("/v1/classify", json={"input": ["ab"] * 4}), range(10)))
    refused = [answer for answer in answers if answer.status_code == 503]
    assert {answer.status_code for answer in answers} == {200, 503} and refused[0].headers["retry-after"] == "1"
    assert min(answer.elapsed.total_seconds() for answer in refused) < 0.4
    error = refused[0].json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("overloaded_error", "overloaded", None)


def test_a_late_answer_is_504_and_is_dropped_from_the_queue(tmp_path: Path) -> None:
    slow = ByLength(seconds=0.4)
    changes = {"bounds": Bounds(seconds=0.2), "policy": Policy(max_batch=1, wait_seconds=0)}
    with serving(tmp_path, Shelf(v1=slow), **changes) as (http, _), ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: http.post("/v1/classify", json={"input": "ab"}), range(4)))
    assert [answer.status_code for answer in answers] == [504] * 4
    assert answers[0].json()["error"]["code"] == "deadline"
    assert len(slow.batches) <= 2, "what nobody waits for any more is not computed"


def test_no_answer_without_a_memory(tmp_path: Path, shelf: Shelf) -> None:
    folder = tmp_path / "a-file"
    folder.write_text("where the folder should be")
    with serving(tmp_path, shelf, memory=Intake(folder / "requests.db")) as (http, _):
        answers = [
            http.post("/v1/classify", json={"input": "ab"}),
            http.post("/v1/feedback", json={"id": "a", "label": "pos"}),
        ]
    for answer in answers:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_unavailable")
        assert answer.headers["retry-after"] == "5" and "a-file" not in answer.text


def test_a_failing_model_fails_its_batch_and_nothing_else(tmp_path: Path) -> None:
    class Half(ByLength):
        def predict(self, texts: Sequence[str], batch_size: int) -> NDArray[np.float64]:
            answers = super().predict(texts, batch_size)
            return answers[:-1] if "bad" in texts else answers

    with serving(tmp_path, Shelf(v1=Half()), policy=Policy(wait_seconds=0)) as (http, parts):
        broken = http.post("/v1/classify", json={"input": "bad"})
        assert (broken.status_code, broken.json()["error"]["code"]) == (500, "inference_failed")
        assert http.post("/v1/classify", json={"input": "good"}).status_code == 200
        assert isinstance(parts.memory, Intake) and len(parts.memory.predictions()) == 1


def test_a_challenger_answers_its_share_of_the_users_and_each_user_stays(tmp_path: Path) -> None:
    from autoglm_ops.serving.arms import Challenge
    from autoglm_ops.serving.host import ModelHost
    from autoglm_ops.serving.metrics import Metrics

    shelf, other = Shelf(v1=ByLength()), Shelf(v2=ByLength(flip=True))
    other.alias = "v2"
    host = ModelHost(other, Metrics(), refresh_seconds=0.05)
    host.start()
    with serving(tmp_path, shelf, challenge=Challenge(host, 0.5)) as (http, parts):
        answers = [http.post("/v1/classify", json={"input": "很好", "user": f"user {n}"}).json()["version"] for n in range(40)]
        again = [http.post("/v1/classify", json={"input": "很好", "user": f"user {n}"}).json()["version"] for n in range(40)]
        assert answers == again and 8 <= answers.count(2) <= 32
        assert [model["version"] for model in http.get("/v1/models").json()["data"]] == [1, 2]
        kept = parts.memory.predictions()
        assert {row.version for row in parts.memory.served()} == {1, 2} and len(kept) == 80
    assert all("user" not in row.model_dump_json() for row in kept)


def test_texts_that_were_asked_together_are_one_unit_of_an_arm(tmp_path: Path) -> None:
    """They were drawn together: an arm that was luckier with one request would look better for each of its texts."""
    with serving(tmp_path, Shelf(v1=ByLength())) as (http, parts):
        names = [
            row["id"]
            for texts in (["很好", "很不好", "好"], ["很好"])
            for row in http.post("/v1/classify", json={"input": texts}).json()["results"]
        ]
        items = [{"id": name, "label": "pos"} for name in names]
        assert http.post("/v1/feedback", json={"items": items}).json()["accepted"] == 4
        assert len({row.unit for row in parts.memory.arms()}) == 2


def test_acts_are_feedback_and_untimely_feedback_is_refused_by_name(tmp_path: Path) -> None:
    with serving(tmp_path, Shelf(v1=ByLength())) as (http, parts):
        key = http.post("/v1/classify", json={"input": "很好"}).json()["results"][0]["id"]
        assert http.post("/v1/feedback", json={"id": key, "behaviour": "copied"}).json()["accepted"] == 1
        assert [row.weight for row in parts.memory.implied()] == [0.6]
        for stated, code in (
            ("2099-01-01", "future"),
            ("soon", "invalid_value"),
            ("2026-01-01T00:00:00+99:00", "invalid_value"),
        ):
            said = http.post("/v1/feedback", json={"id": key, "label": "neg", "timestamp": stated})
            assert (said.status_code, said.json()["error"]["code"]) == (422, code)
        assert http.post("/v1/feedback", json={"id": key, "behaviour": "stared"}).status_code == 422
        assert http.post("/v1/feedback", json={"id": key, "behaviour": "copied", "label": "pos"}).status_code == 422
        assert parts.memory.labelled() == []


def test_requests_are_counted_for_the_day_they_ask_about_and_mistakes_of_clients_are_not(tmp_path: Path) -> None:
    with serving(tmp_path, Shelf(v1=ByLength())) as (http, _):
        http.post("/v1/classify", json={"input": ["很好", "不好"], "timestamp": "2026-01-05"})
        http.post("/v1/classify", json={"input": "", "timestamp": "2026-01-05"})
        http.post("/v1/classify", json={"input": "很好", "model": "other", "timestamp": "2026-01-05"})
        http.post("/v1/classify", json={"input": "很好", "timestamp": "2026-01-05"})
    (row,) = [one for one in Intake(tmp_path / "requests.db").served() if one.ok][:1]
    total = Intake(tmp_path / "requests.db").served()
    assert sum(one.requests for one in total) == 2 and sum(one.texts for one in total) == 3 and row.day == "2026-01-05"
