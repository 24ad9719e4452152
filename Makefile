# The front door of Berth. `make help` lists the targets.
# Needs Python >= 3.11 and make; everything else is installed into .venv (faster where `uv` is on PATH).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
RUNTIME := $(VENV)/.installed-runtime
DEVELOPMENT := $(VENV)/.installed-development

# The fast tests need neither a server nor a browser; `make test` adds the others. tests/conftest.py marks
# tests/integration and tests/e2e, so that each test belongs to exactly one of the two.
REAL := nats or slow or e2e
FAST := not ($(REAL))

# The fast tests share nothing, so they run side by side; those with a server or a browser run one after the other.
WORKERS := 2

# The checks run side by side, unless `make -j` has said already how many may.
PARALLEL = $(if $(findstring jobserver,$(MAKEFLAGS)),,--jobs=2)

.PHONY: help
help: ## List the targets, what they do and how long they usually take [1 s]
	@awk -F '## ' '/^[a-z0-9-]+:.*## / { split($$1, name, ":"); printf "  make %-15s %s\n", name[1], $$2 }' $(MAKEFILE_LIST)

# ---------------------------------------------------------------- set-up

.PHONY: install
install: $(DEVELOPMENT) ## Make .venv with everything that running and developing needs [20 s, or 3 s with uv and a warm cache; then 0 s]

$(VENV)/bin/python:
	@bash .ci/venv create $(VENV)

$(RUNTIME): requirements/runtime.txt requirements/build.txt pyproject.toml | $(VENV)/bin/python
	@bash .ci/venv install $(VENV) requirements/build.txt requirements/runtime.txt
	@touch $@

$(DEVELOPMENT): requirements/development.txt $(RUNTIME)
	@bash .ci/venv install $(VENV) requirements/development.txt
	@touch $@

.PHONY: browser
browser: ## Find the Chromium that the browser tests drive, or install it (Debian, as root) [0 s; 10 s the first time]
	@bash .ci/browser

.PHONY: lock
lock: $(DEVELOPMENT) ## Choose newer versions of the dependencies and write requirements/ again [5 s]
	@bash .ci/lock $(BIN)/uv

# ---------------------------------------------------------------- use

.PHONY: up
up: $(RUNTIME) ## Run all of Berth on this machine until Ctrl-C; ARGS="--nodes 20" passes options [10 s to the URLs]
	@exec $(BIN)/berth up $(ARGS)

.PHONY: bench
bench: $(RUNTIME) ## Measure latency, pipeline and failover beside their floors [3 min]
	@for benchmark in $(or $(BENCH),latency pipeline failover); do $(BIN)/berth bench $$benchmark --json; done

# ---------------------------------------------------------------- checks

.PHONY: check
check: check-static check-fast ## Formatting, lint, types, import contracts, unit tests, scenarios, 25 seeds: before each commit [under 60 s]

.PHONY: check-static
check-static: $(DEVELOPMENT)
	@$(MAKE) --no-print-directory --keep-going $(PARALLEL) --output-sync=target \
		check-types check-format check-lint check-imports

.PHONY: check-format
check-format: $(DEVELOPMENT)
	@$(BIN)/ruff format --check --quiet --output-format concise . || { echo "ruff format: run 'make format'" >&2; exit 1; }

.PHONY: check-lint
check-lint: $(DEVELOPMENT)
	@$(BIN)/ruff check --quiet .

.PHONY: check-types
check-types: $(DEVELOPMENT)
	@$(BIN)/pyright --warnings

.PHONY: check-imports
check-imports: $(DEVELOPMENT)
	@$(BIN)/lint-imports --no-logo

.PHONY: check-fast
check-fast: $(DEVELOPMENT)
	@SEEDS=$${SEEDS:-25} $(PYTEST) -q -m "$(FAST)" --numprocesses=$(WORKERS) tests

.PHONY: format
format: $(DEVELOPMENT) ## Format the code and repair what the linter can repair [1 s]
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --fix --quiet .

.PHONY: test
test: check-fast test-real ## Every test, real nats-server and browser included [under 10 min]

.PHONY: test-real
test-real: $(DEVELOPMENT) browser
	@SEEDS=$${SEEDS:-25} $(PYTEST) -q -m "$(REAL)" tests

.PHONY: sim
sim: $(DEVELOPMENT) ## The simulation: SEED="41 97" runs these, SEEDS=5000 that many, 200 else [1 min]
	@SEEDS=$${SEEDS:-200} $(PYTEST) -q tests/simulation

.PHONY: operations
operations: $(DEVELOPMENT) ## 10,000 random operations on requests, quotas and nodes, each recounted; SEED="41 97" runs these [10 min]
	@OPERATIONS=$${OPERATIONS:-10000} SEED="$${SEED:-1}" $(PYTEST) -q tests/simulation/test_quota_operations.py

.PHONY: scenarios
scenarios: $(DEVELOPMENT) ## The scenario traces; REWRITE=1 writes them again: explain every line that changes [5 s]
	@REWRITE=$(REWRITE) $(PYTEST) -q tests/scenarios

.PHONY: e2e
e2e: $(DEVELOPMENT) browser ## The end-to-end tests through `berth up` and the browser [5 min]
	@$(PYTEST) -q tests/e2e

.PHONY: docs
docs: $(DEVELOPMENT) ## Write docs/reference again from the code; a test fails when it differs [2 s]
	@$(BIN)/python -m docs.generate_reference

.PHONY: clean
clean: ## Remove .venv and what the tools cached; data of clusters stays [1 s]
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
