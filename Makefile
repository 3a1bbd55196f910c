# One entry for people and for continuous integration. Everything sets itself up: nothing to install by hand.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SEED ?=
LOG ?=
PARTS ?=

.PHONY: demo test check lint types sim sim-full chaos bench docs examples fix clean help setup
.DEFAULT_GOAL := help

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## the virtual environment with everything that tests and examples need

$(STAMP): pyproject.toml tools/requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[llm,mcp,cel,sql,resources,postgres,nats,kafka,http,server,sign,cron]' -r tools/requirements-dev.txt
	sh tools/system-packages.sh
	touch $(STAMP)

demo: $(STAMP)  ## the main job: real files, kill -9 in the middle, proof at the end; LOG=URL, PARTS=1
	$(BIN)/python -m examples.main_job $(if $(LOG),--log '$(LOG)') $(if $(PARTS),--parts)

test: $(STAMP)  ## all tests
	$(BIN)/python -m pytest -q -n 3 --dist loadgroup

check: $(STAMP) lint types test  ## what continuous integration runs

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

fix: $(STAMP)  ## format, and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

sim: $(STAMP)  ## a minute of simulation; SEED=n replays one schedule
	$(BIN)/python -m logact.testing.simulator $(if $(SEED),--seed $(SEED),--minutes 1)

sim-full: $(STAMP)  ## the long simulation: 100,000 schedules and every mutant
	$(BIN)/python -m logact.testing.simulator --full

chaos: $(STAMP)  ## three minutes of kills, stops and full disks on real processes; SEED=n repeats a plan
	$(BIN)/python -m benchmarks.chaos $(if $(SEED),--seed $(SEED),)

bench: $(STAMP)  ## all benchmarks in full
	$(BIN)/python -m benchmarks.crash --json --engine all
	$(BIN)/python -m benchmarks.action_cost --json
	$(BIN)/python -m benchmarks.votes --json
	$(BIN)/python -m benchmarks.agentdojo --json
	$(BIN)/python -m benchmarks.recovery --json
	$(BIN)/python -m benchmarks.semantic_recovery --json
	$(BIN)/python -m benchmarks.engines --json
	$(BIN)/python -m benchmarks.failover --json
	$(BIN)/python -m benchmarks.introspection --json
	$(BIN)/python -m benchmarks.swarm --json

docs: $(STAMP)  ## write the generated pages anew
	$(BIN)/python docs/generate.py

examples: $(STAMP)  ## run every example
	$(BIN)/python -m pytest -q tests/test_examples.py

clean:  ## drop what can be made again
	rm -rf $(VENV) .demo .bench build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
