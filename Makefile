# Each target makes its own .venv first, from a bare Python 3.11+ (see .ci/setup); nothing global.
#
#   make demo                a host dies and its VMs come back, in about a minute
#   make test                format, lint, types, layers, tests: what CI runs
#   make soak SEEDS=20000    the seeded simulation, longer
#   make bench               how fast, as a table
#   make bench-detect        how soon a fault becomes a verdict, and how often it is wrong
#   make bench-storm         how soon everything is up again, by who paces the storm
#   make cluster-test        the daemon on a real control plane (builds it first; needs Go)
#   make cluster-assets      only its programs
#   make clean               remove what these made

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

BIN := .venv/bin
STAMP := .venv/.made-from
SEEDS ?= 20000
WORKERS ?= 2
DEMO ?=

.PHONY: help demo test soak bench bench-detect bench-storm cluster-test cluster-assets clean

help:
	@sed -n 's/^#   //p' Makefile

$(STAMP): uv.lock pyproject.toml .ci/setup
	@.ci/setup

demo: $(STAMP)
	@$(BIN)/remediator demo $(DEMO)

test: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n $(WORKERS) --dist worksteal --ignore=tests/cluster
	@echo "Not run here: tests/cluster, on a real control plane (make cluster-test)."

soak: $(STAMP)
	SEEDS=$(SEEDS) $(BIN)/pytest tests/simulation -n $(WORKERS) --timeout=0
	FUZZ_POLICIES=100000 $(BIN)/pytest tests/policy/test_fuzz.py -n $(WORKERS) --timeout=0
	HYPOTHESIS_PROFILE=explore $(BIN)/pytest tests/engine tests/policy tests/signals -n $(WORKERS)

bench: $(STAMP)
	@$(BIN)/python bench/run.py

bench-detect: $(STAMP)
	@$(BIN)/python bench/detect.py

bench-storm: $(STAMP)
	@$(BIN)/python bench/storm.py

# One at a time: these tests judge seconds, and a control plane takes both cores of a small machine.
cluster-test: cluster-assets
	CLUSTER_TESTS=required $(BIN)/pytest tests/cluster -s

cluster-assets: $(STAMP)
	@$(BIN)/python tests/cluster/assets/provide.py

clean:
	rm -rf .venv .venv-bootstrap dist build *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
