# Each target sets up `.venv` by itself; the second time it is there already.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# The tests that take seconds, those files first that take longest (tests/conftest.py). Three processes on two cores: a
# quarter of the time they wait, for Ray, servers and a browser to start.
QUICK := -n 3 --dist loadfile --no-loadscope-reorder -m "not slow and not gpu"
# Of these every branch has to be run by some test.
CORE := ensembler/store.py,ensembler/config*.py,ensembler/parquet.py,ensembler/predictions*.py,ensembler/combiners/*,ensembler/bundle/*,ensembler/evaluation/cross_fit.py

# Compiled sources are kept, whatever the caller's environment says: tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test coverage slow faults lock audit locked bounds wheel fuzz mutation check app clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (the first time: some minutes and 6 GB, most of it torch)" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[all,dev]'
	@touch $@

demo: $(STAMP)  ## the whole road on handwritten digits, then the leaderboard
	@$(BIN)/ensembler run configs/quickstart.yaml

test: $(STAMP)  ## every test that takes seconds
	@$(BIN)/python -m pytest $(QUICK)

coverage: $(STAMP)  ## the same tests with branches counted, which takes half as long again; all of the core has to be run
	@$(BIN)/python -m pytest $(QUICK) --cov --cov-report=
	@$(BIN)/python -m coverage report --fail-under=90
	@$(BIN)/python -m coverage report --include='$(CORE)' --fail-under=100

slow: $(STAMP)  ## the tests that take minutes
	@$(BIN)/python -m pytest -m "slow"

fuzz: $(STAMP)  ## 100,000 broken configs, manifests, images, runs, bundles, addresses (an hour)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fuzz]'
	@$(BIN)/python -m tests.fuzz.long --report reports/reliability.md

mutation: $(STAMP)  ## small faults in the code, and how many of them the tests notice (hours)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[mutation]'
	@$(BIN)/python scripts/mutation.py

faults: $(STAMP)  ## every file operation fails, 500 kill -9, a soak of 2,000 Cells, in runs/faults (hours; goes on where it was left)
	@$(BIN)/python -m pytest tests/faults/test_workers.py tests/faults/test_network.py
	@$(BIN)/python -m tests.faults.filesystem runs/faults/filesystem.jsonl
	@$(BIN)/python -m tests.faults.filesystem runs/faults/filesystem.jsonl --report reports/reliability.md
	@$(BIN)/python -m tests.faults.kills runs/faults --kills 500
	@$(BIN)/python -m tests.faults.kills runs/faults --report reports/reliability.md
	@$(BIN)/python -m tests.faults.soak runs/faults --report reports/reliability.md

check: $(STAMP)  ## format, lint, types, docs
	@scripts/check

app: $(STAMP)  ## the app, over runs/
	@$(BIN)/ensembler app runs

wheel: $(STAMP)  ## the wheel, installed and used in environments of its own (some minutes)
	@scripts/wheel_check

lock: $(STAMP)  ## requirements.lock anew, with what pyproject.toml asks for by now
	@scripts/lock

locked:  ## .venv with exactly what requirements.lock names, each file held against its hash
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $(STAMP)

audit: $(STAMP)  ## known vulnerabilities of what requirements.lock names
	@scripts/audit

bounds: $(STAMP)  ## tests with the lowest release of everything that pyproject.toml allows (some minutes)
	@scripts/bounds_check

clean:  ## the environment and the runs
	rm -rf $(VENV) runs bundles
