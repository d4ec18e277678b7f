"""The contract of `autoglm` that the DAGs rely on, without the work.

$AUTOGLM_HOME/plan.json steers it: {"exits": {"train": [75, 0]}, "verdict": "promote", "decision": "run", "fired": true,
"alerts": [...], "listing": "…", "sleep": {"train": 60}, "silent": ["train"], "facts": {"promote": {...}}}. Every call is a line of calls.jsonl.
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

HOME = Path(os.environ["AUTOGLM_HOME"])
PLAN = json.loads((HOME / "plan.json").read_text()) if (HOME / "plan.json").exists() else {}


def called(words: list[str]) -> int:
    with (HOME / "calls.jsonl").open("a") as file:
        file.write(json.dumps(words) + "\n")
    return sum(json.loads(line) == words for line in (HOME / "calls.jsonl").read_text().splitlines())


def option(words: list[str], name: str) -> str:
    return next(word.partition("=")[2] for word in words if word.startswith(f"--{name}="))


def open_run(words: list[str]) -> None:
    dag, dag_run = option(words, "dag"), option(words, "dag-run-id")
    run = hashlib.sha256(f"{dag}{dag_run}".encode()).hexdigest()[:12]
    root = HOME / "runs" / run
    for name, text in {
        "out/gate/verdict.json": json.dumps(
            {"verdict": PLAN.get("verdict", "promote"), "policy": "p", "reasons": ["r1"], "evidence": {}}
        ),
        "params.yaml": f"release: {{promote: {json.dumps('--no-promote' not in words)}, approval: {json.dumps(PLAN.get('approval', False))}}}\n",
        "out/tune/report.json": json.dumps(
            {
                "verdict": "tuned",
                "objective": "macro_f1",
                "direction": "maximize",
                "space": {},
                "best": PLAN.get("best", {"train.learning_rate": 0.002}),
                "best_value": 0.7,
            }
        ),
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    info = {
        "run": run,
        "workspace": str(root),
        "decision": PLAN.get("decision", "run"),
        "reason": "new",
        "as_of": option(words, "as-of"),
        "content_key": run,
        "dag": dag,
        "dag_run_id": dag_run,
        "opened": 0.0,
    }
    print(json.dumps(info))


def execute(run: str, stage: str, attempt: int) -> int:
    exits = PLAN.get("exits", {}).get(stage, [0])
    code = exits[min(attempt, len(exits)) - 1]
    print(json.dumps({"message": f"{stage} says hello", "log.level": "info"}), file=sys.stderr, flush=True)
    time.sleep(PLAN.get("sleep", {}).get(stage, 0) if attempt == 1 else 0)
    reasons = () if code == 0 else (f"{stage} was told to end with {code}",)
    done = {
        "stage": stage,
        "run": run,
        "attempt": attempt,
        "started": time.time(),
        "seconds": 0.1,
        "cached": attempt > 1,
        "exit": code,
        "reasons": reasons,
        "facts": PLAN.get("facts", {}).get(stage, {}),
    }
    path = HOME / "runs" / run / "completed" / f"{stage}.json"
    path.parent.mkdir(exist_ok=True)
    if stage not in PLAN.get("silent", []):
        path.write_text(json.dumps(done))
    print(json.dumps(done))
    return code


words = sys.argv[1:]
attempt = called(words)
time.sleep(PLAN.get("sleep", {}).get(words[0], 0) if attempt == 1 else 0)
match words[:2]:
    case ["runs", "open"]:
        open_run(words)
    case ["runs", "send"]:
        print(json.dumps({"pod": PLAN.get("pods", {}).get(words[3]), "context": None}))
    case ["runs", "exec" | "take"]:
        sys.exit(execute(words[2], words[3], attempt))
    case ["runs", "close"]:
        print(json.dumps({"branch": f"runs/{words[2]}"}))
    case ["feedback", "signals"]:
        print(json.dumps({"fired": PLAN.get("fired", True)}))
    case ["trial", "ask"]:
        rounds = PLAN.get("rounds", [])
        print(json.dumps(rounds[attempt - 1] if attempt <= len(rounds) else []))
    case ["trial", "run"]:
        look = json.loads(option(words, "look"))
        code = PLAN.get("trial_exit", 0)
        print(json.dumps({"look": look, "score": 0.5, "refused": ""}))
        sys.exit(code)
    case ["data", "listing"]:
        print(json.dumps({"listing": PLAN.get("listing")}))
    case ["monitor", *_]:
        print(json.dumps({"alerts": PLAN.get("alerts", [])}))
    case _:
        print(json.dumps([]))
