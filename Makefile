# Two commands do all: `make run` (one whole retraining cycle) and `make test`.
# Everything lives in .venv (packages) and .autoglm (what runs leave); `make clean` removes the second.
SHELL := /bin/bash
PYTHON ?= python3
VENV   := .venv
BIN    := $(abspath $(VENV)/bin)
DAYS   ?= 14
ARGS   ?=
UV_VERSION := 0.13.9
TORCH      := 2.13.0
export PATH := $(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help install run test check up down demo bench bench-data bench-train bench-goodput bench-checkpoint proof-data chaos-checkpoint chaos-train doctor nightly lock clean proof-feedback bench-tune chaos-cluster race-runs images bench-tune-default bench-patches bench-nights chaos-tune

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

install: $(VENV)/.installed ## the packages, pinned by hash, into .venv

# torch comes first and by pip: the platform's own choice of build (CPU or CUDA) then stays.
$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "Python 3.11 is needed; try: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "installing into $(VENV) (once, about a minute)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)" "torch==$(TORCH)"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes --compile-bytecode -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

run: install ## one whole retraining cycle on real data; ARGS="--set train.epochs=1"
	@autoglm run $(ARGS)

test: install ## the tests, a process a core
	@pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check: install ## format, lint, types and unit tests: before every commit
	@ruff format --check --quiet .
	@ruff check --quiet .
	@mypy
	@pytest tests/unit tests/contracts -x

up: install ## Airflow, MLflow and the model server on loopback
	@autoglm up $(ARGS)

down: install ## stop exactly what `make up` started
	@autoglm down

demo: install ## the loop closing over DAYS days (14)
	@autoglm demo --days $(DAYS) $(ARGS)

bench: install ## the benchmarks: tables on the terminal, JSON in .autoglm/bench
	@for file in tests/benchmarks/bench_*.py; do python $$file || exit 1; done

PEERS := $(abspath .venv-peers)
bench-data: install ## the data engine beside datatrove, datasketch and rensa; MB=500 REPEATS=5
	@test -x $(PEERS)/bin/python || { $(PYTHON) -m venv $(PEERS) && $(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check \
	  datatrove==0.10.1 datasketch==2.0.0 rensa==0.5.0 regex nltk orjson 'xxhash<4' pyarrow tokenizers; }
	@python tests/benchmarks/bench_data.py --mb $(or $(MB),500) --repeats $(or $(REPEATS),5) --peers $(PEERS)/bin/python

bench-train: install ## our training loop beside transformers' Trainer; REPEATS=5
	@OMP_NUM_THREADS=1 python tests/benchmarks/bench_train.py --repeats $(or $(REPEATS),5) $(ARGS)

bench-tune: install ## steps to the target on learning-curve tables, beside random and Optuna; TABLES=DIR MINUTES=60
	@OMP_NUM_THREADS=1 python tests/benchmarks/bench_tune.py $(if $(TABLES),--tables $(TABLES)) --minutes $(or $(MINUTES),60)

bench-tune-default: install ## seconds to the target on the default dataset, beside a grid and random search; SLICE=420 seconds, adds to earlier slices
	@python tests/benchmarks/bench_default.py --seconds $(or $(SLICE),420) $(ARGS)

bench-patches: install ## studies and retrainings with the loop's patches and without, 20 seeds; SLICE=420 seconds, adds to earlier slices
	@python tests/benchmarks/bench_patches.py --seconds $(or $(SLICE),420) $(ARGS)

bench-nights: install ## each night's model on the next day beside a newcomer's and TF-IDF, three seeds; SLICE=420 seconds, adds to earlier slices
	@python tests/benchmarks/bench_nights.py --seconds $(or $(SLICE),420) $(ARGS)

proof-data: install ## a gigabyte of dirty text: folder, S3 and ten kills make one digest; memory at 10^5 and 10^6 documents
	@python tests/benchmarks/proof_data.py --mb $(or $(MB),1000) $(ARGS)

chaos-checkpoint: install ## kills, and a fault at every system call of a checkpoint's save; KILLS=2000 FAULTS=10000 SLICE=1800 seconds, adds to earlier slices
	@OMP_NUM_THREADS=1 python tests/benchmarks/chaos_checkpoint.py --kills $(or $(KILLS),2000) --faults $(or $(FAULTS),10000) --seconds $(or $(SLICE),1800) $(ARGS)

chaos-train: install ## ranks killed and stopped at random in real DeepSpeed runs, each supervised to its end; KILLS=200 SLICE=1200 seconds, adds to earlier slices
	@OMP_NUM_THREADS=1 python tests/benchmarks/chaos_train.py --kills $(or $(KILLS),200) --seconds $(or $(SLICE),1200) $(ARGS)

bench-goodput: install ## a supervised training that loses a rank a minute: share of the time that counts; MINUTES=10 ARGS=--unbroken
	@OMP_NUM_THREADS=1 python tests/benchmarks/bench_goodput.py --minutes $(or $(MINUTES),10) $(ARGS)

bench-checkpoint: install ## what training waits for a checkpoint, beside torch.save and torch DCP; restarts; MB=200 ROUNDS=15
	@OMP_NUM_THREADS=1 python tests/benchmarks/bench_checkpoint.py --mb $(or $(MB),200) --rounds $(or $(ROUNDS),15)

chaos-cluster: install ## pods deleted, tasks cleared and started twice, launchers killed on the cluster of KUBECONFIG; FAULTS=100 SLICE=540 seconds, adds to earlier slices
	@OMP_NUM_THREADS=1 python tests/benchmarks/chaos_cluster.py --faults $(or $(FAULTS),100) --seconds $(or $(SLICE),540) $(ARGS)

race-runs: install ## many runs of one key through their effects on a real S3 server: one result, one promotion; RUNS=10000
	@OMP_NUM_THREADS=1 python tests/benchmarks/race_runs.py --runs $(or $(RUNS),10000) $(ARGS)

images: install ## the images, built and looked into on the engine of DOCKER_HOST; AUTOGLM_BASE_IMAGE=python:3.11-slim-bookworm
	@pytest -m slow -s tests/cluster/test_images.py

chaos-tune: install ## coordinators and workers of studies killed at random, on SQLite and on PostgreSQL, each study to its end; KILLS=100
	@OMP_NUM_THREADS=1 python tests/benchmarks/chaos_tune.py --kills $(or $(KILLS),100)

proof-feedback: install ## ten years of nights with reporters that lie: no bound left, no decision changed; NIGHTS=3650
	@python tests/benchmarks/proof_feedback.py --nights $(or $(NIGHTS),3650)

doctor: install ## what works on this machine
	@autoglm doctor

nightly: install ## everything, the long ones too
	@pytest -m "slow or not slow"
	@$(MAKE) --no-print-directory chaos-train bench-goodput
	@python tests/benchmarks/proof_feedback.py
	@$(MAKE) --no-print-directory race-runs
	@python tests/benchmarks/bench_default.py --seconds 7200
	@python tests/benchmarks/bench_patches.py --seconds 3600
	@python tests/benchmarks/chaos_tune.py
	@autoglm demo --days 14

lock: install ## resolve pyproject.toml into requirements.lock (torch and what only its CUDA build needs stay out)
	@uv pip compile pyproject.toml --quiet --all-extras --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  $(foreach name,torch $(shell grep -oE '^(nvidia|cuda|triton)[a-z0-9-]*' requirements.lock),--no-emit-package $(name)) -o requirements.lock
	@names=$$(grep -oE '^(nvidia|cuda|triton)[a-z0-9-]*' requirements.lock); test -z "$$names" || $(MAKE) lock
	@$(MAKE) --no-print-directory $(LOCKS)

# What an image installs: the same versions and hashes as requirements.lock, of the extras it needs.
EXTRAS_trainer := train tune evaluate store
EXTRAS_airflow := airflow tune data evaluate track versioning store
EXTRAS_platform := data train boards tune evaluate track versioning store queue serve airflow
LOCKS := docker/trainer.lock docker/airflow.lock docker/platform.lock
.PHONY: $(LOCKS)
$(LOCKS): docker/%.lock:
	@compile() { uv pip compile pyproject.toml --quiet $(foreach extra,$(EXTRAS_$*),--extra $(extra)) --constraint requirements.lock \
	  --generate-hashes --no-emit-index-url --no-header --python-version 3.11 "$$@"; }; \
	left_out=$$(compile | grep -oE '^(nvidia|cuda|triton)[a-z0-9-]*'); \
	compile $$(for name in torch $$left_out; do echo --no-emit-package $$name; done) -o $@

clean: ## remove what runs left (.autoglm, out); packages stay
	@rm -rf .autoglm out completed refused inputs/*.json dvc.lock
